"""`letta-matrix tokens`: who may use the REST API and the MCP server."""

import asyncio
import json
import sys
from typing import Annotated

import typer

from letta_matrix.cli.options import ConfigOption, DataOption, JsonOption, settings_in

AsOption = Annotated[
    str,
    typer.Option(
        "--as",
        metavar="AGENT",
        help="The agent it acts as: its id, name or user id. Default: the bot.",
        show_default=False,
    ),
]
ScopeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        metavar="SCOPES",
        help="Of read, write, rooms, agents, admin, metrics, with commas. Default: the first four.",
        show_default=False,
    ),
]
RoomsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rooms",
        metavar="ROOMS",
        help="The only rooms it is for: ids, or aliases, which are looked up once, now; with "
        "commas. Default: all.",
        show_default=False,
    ),
]
ExpiresOption = Annotated[
    str, typer.Option("--expires", metavar="TIME", help="Such as 30m, 12h, 90d, 8w, or never.")
]
LabelOption = Annotated[
    str, typer.Option("--label", metavar="TEXT", help="What it is for.", show_default=False)
]
TokenArgument = Annotated[
    str, typer.Argument(metavar="TOKEN", help="Its id, or how the id or the token begins.")
]


commands = typer.Typer(
    help="Make, list and revoke tokens for the REST API and the MCP server.",
    no_args_is_help=True,
)


@commands.command("create")
def create(
    acts_as: AsOption = "",
    scope: ScopeOption = None,
    rooms: RoomsOption = None,
    expires: ExpiresOption = "90d",
    label: LabelOption = "",
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it, this one time; what it is for goes to standard error."""
    from letta_matrix.app.logs import configure_logging, secrets_of
    from letta_matrix.cli import own_tokens
    from letta_matrix.config import Logging

    settings = settings_in(config, data)
    # Standard output is for the token alone.
    configure_logging(Logging(level="error"), secrets_of(settings))
    making = own_tokens.make(settings, acts_as, _words(scope), _words(rooms), expires, label)
    text, token = asyncio.run(making)
    if as_json:
        print(json.dumps({**own_tokens.fields(token), "token": text}, indent=2))
        return
    print(own_tokens.described(token, settings), file=sys.stderr)
    print("It is shown only now; only a digest of it is kept.", file=sys.stderr)
    print(text)


@commands.command("list")
def list_tokens(
    config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """List the tokens, without their secrets."""
    from letta_matrix.cli import own_tokens

    settings = settings_in(config, data)
    found = asyncio.run(own_tokens.known(settings))
    if as_json:
        print(json.dumps([own_tokens.fields(token) for token in found], indent=2))
    elif not found:
        print("no tokens yet")
    else:
        print("\n".join(own_tokens.described(token, settings) for token in found))


@commands.command("revoke")
def revoke(token: TokenArgument, config: ConfigOption = None, data: DataOption = None) -> None:
    """Refuse a token from now on."""
    from letta_matrix.cli import own_tokens

    print(asyncio.run(own_tokens.revoke(settings_in(config, data), token)))


def _words(given: list[str] | None) -> list[str] | None:
    """The parts of options that may be repeated and hold several each."""
    if given is None:
        return None
    return [word.strip() for one in given for word in one.split(",") if word.strip()]

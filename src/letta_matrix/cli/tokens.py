"""`letta-matrix tokens`: who may use the REST API and the MCP server."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from letta_matrix.cli.faults import BadInput, Failure
from letta_matrix.cli.options import ConfigOption, DataOption, JsonOption, config_path
from letta_matrix.config.program import typed

if TYPE_CHECKING:
    from letta_matrix.config import Config
    from letta_matrix.store.database import Database
    from letta_matrix.store.tokens import AccessToken

_SHORTEST_PREFIX = 4
_HOMESERVER_TIMEOUT = 10.0

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
        help="Of read, write, rooms, agents, admin, with commas. Default: all but admin.",
        show_default=False,
    ),
]
RoomsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rooms",
        metavar="ROOMS",
        help="The only rooms it is for: ids or aliases, with commas. Default: all.",
        show_default=False,
    ),
]
ExpiresOption = Annotated[
    str, typer.Option("--expires", metavar="TIME", help="Such as 12h, 90d, or never.")
]
LabelOption = Annotated[
    str, typer.Option("--label", metavar="TEXT", help="What it is for.", show_default=False)
]
TokenArgument = Annotated[
    str, typer.Argument(metavar="TOKEN", help="Its id, or how the id or the token begins.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    tokens = typer.Typer(
        help="Make, list and revoke tokens for the REST API and the MCP server.",
        no_args_is_help=True,
    )
    tokens.command("create")(create)
    tokens.command("list")(list_tokens)
    tokens.command("revoke")(revoke)
    app.add_typer(tokens, name="tokens")


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
    from letta_matrix.access.grants import BadGrant
    from letta_matrix.app.logs import configure_logging, secrets_of
    from letta_matrix.config import Logging, load_config

    settings = load_config(config_path(config, data))
    # Standard output is for the token alone.
    configure_logging(Logging(level="error"), secrets_of(settings))
    made = _create(settings, acts_as, _words(scope), _words(rooms), expires, label)
    try:
        text, token = asyncio.run(made)
    except BadGrant as fault:
        raise BadInput(str(fault)) from None
    if as_json:
        print(json.dumps({**_fields(token), "token": text}, indent=2))
        return
    print(_described(token, settings), file=sys.stderr)
    print("It is shown only now; only a digest of it is kept.", file=sys.stderr)
    print(text)


def list_tokens(
    config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """List the tokens, without their secrets."""
    from letta_matrix.config import load_config

    settings = load_config(config_path(config, data))
    found = asyncio.run(_all(settings))
    if as_json:
        print(json.dumps([_fields(token) for token in found], indent=2))
    elif not found:
        print("no tokens yet")
    else:
        print("\n".join(_described(token, settings) for token in found))


def revoke(token: TokenArgument, config: ConfigOption = None, data: DataOption = None) -> None:
    """Refuse a token from now on."""
    from letta_matrix.config import load_config

    print(asyncio.run(_revoke(load_config(config_path(config, data)), token)))


async def _create(
    config: "Config",
    acts_as: str,
    scopes: Collection[str] | None,
    rooms: Collection[str] | None,
    expires: str,
    label: str,
) -> "tuple[str, AccessToken]":
    """A new token's text, and what is stored of it. Raises BadGrant, BadInput, Failure."""
    from letta_matrix.access.grants import label_of, lifetime_of, rooms_for, scopes_for
    from letta_matrix.access.secrets import issue
    from letta_matrix.cli.database import called
    from letta_matrix.store.agents import AgentDirectory
    from letta_matrix.store.tokens import TokenStore

    async with _open(config) as database:
        directory = AgentDirectory(database)
        await directory.load()
        is_bot = acts_as in ("", config.bot_user_id)
        agent_id = "" if is_bot else called(acts_as, directory.all()).agent_id
        granted = scopes_for(scopes, agent_id)
        ids = None if rooms is None else await _room_ids(config, rooms)
        text, token = issue(
            agent_id=agent_id,
            scopes=granted,
            rooms=rooms_for(ids, granted),
            label=label_of(label),
            lifetime=lifetime_of(expires),
        )
        await TokenStore(database).add(token)
        await _note(config, database, "tokens.create", token.told())
    return text, token


async def _all(config: "Config") -> "list[AccessToken]":
    from letta_matrix.store.tokens import TokenStore

    async with _open(config) as database:
        return await TokenStore(database).all()


async def _revoke(config: "Config", given: str) -> str:
    """What happened, in a line. Raises BadInput, Failure."""
    from letta_matrix.store.tokens import TokenStore

    async with _open(config) as database:
        store = TokenStore(database)
        token = _meant(given, await store.all())
        changed = await store.revoke(token.token_id, time.time())
        await _note(config, database, "tokens.revoke", {"token_id": token.token_id})
    return f"{token.token_id} " + ("is revoked" if changed else "was revoked before")


async def _note(
    config: "Config", database: "Database", action: str, arguments: Mapping[str, object]
) -> None:
    """Say in the audit log what was done, as the bridge does of what comes through its doors."""
    from letta_matrix.store.audit import AuditEntry, AuditStore, fingerprint

    known, now = fingerprint(arguments), time.time()
    entry = AuditEntry("cli", config.bot_user_id, "cli", action, known, now, outcome="ok")
    await AuditStore(database).begin(entry)


@asynccontextmanager
async def _open(config: "Config") -> "AsyncGenerator[Database]":
    """The database, at the schema that we know. Raises Failure."""
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    from letta_matrix.cli.database import open_existing
    from letta_matrix.store.database import HEAD, StoreError

    query = text("SELECT version_num FROM alembic_version")
    async with open_existing(config) as database:
        try:
            revision = await database.read(lambda db: db.execute(query).scalar_one_or_none())
        except (StoreError, DBAPIError) as error:
            if "alembic_version" not in str(error):
                raise Failure(f"the database cannot be read: {error}") from None
            revision = None
        if revision != HEAD:
            raise Failure(
                f"the database has schema {revision or '(none)'}, this letta-matrix needs {HEAD}: "
                "start the bridge of this version once"
            )
        yield database


async def _room_ids(config: "Config", refs: Collection[str]) -> list[str]:
    """The ids of rooms given by id or alias. Raises BadInput, Failure."""
    wrong = next((ref for ref in refs if not ref.startswith(("!", "#"))), None)
    if wrong is not None:
        raise BadInput(f"{wrong!r}: give rooms by id (!...) or alias (#...), not by name")
    aliases = [ref for ref in refs if ref.startswith("#")]
    resolved = await _resolved(config, aliases) if aliases else {}
    return [resolved.get(ref, ref) for ref in refs]


async def _resolved(config: "Config", aliases: Collection[str]) -> dict[str, str]:
    from mautrix.errors import MatrixRequestError

    from letta_matrix.access.route import route_to
    from letta_matrix.matrix.errors import refusal
    from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
    from letta_matrix.matrix.pacing import Pacer

    token = config.appservice.as_token.get_secret_value()
    homeserver = Homeserver(config.homeserver.url, token, Pacer(1.0), route_to(config))
    bot = homeserver.acting_as(config.bot_user_id)
    try:
        async with asyncio.timeout(_HOMESERVER_TIMEOUT):
            found = {alias: await bot.resolve_alias(alias) for alias in aliases}
    except (TimeoutError, HomeserverUnavailable):
        raise Failure(
            f"{config.homeserver.url} finds no answer for {' '.join(aliases)}: is it the right "
            f"server name ({config.homeserver.domain} is ours)? Ids of rooms (!...) do as well"
        ) from None
    except MatrixRequestError as error:
        raise BadInput(f"an alias cannot be looked up: {refusal(error)}") from None
    finally:
        await homeserver.close()
    missing = [alias for alias, room_id in found.items() if room_id is None]
    if missing:
        raise BadInput(f"there is no room {missing[0]}")
    return {alias: room_id for alias, room_id in found.items() if room_id is not None}


def _meant(given: str, known: "list[AccessToken]") -> "AccessToken":
    """The token with that id, or whose id or text begins so. Raises BadInput."""
    # Of a whole token the secret does not matter, and is not repeated in an error.
    start = given.removeprefix("lm_").partition("_")[0]
    found = [token for token in known if token.token_id.startswith(start)]
    if len(start) < _SHORTEST_PREFIX or not found:
        listing = typed(["tokens", "list"])
        raise BadInput(f"there is no token {start!r}; `{listing}` shows their ids")
    if len(found) > 1:
        ids = ", ".join(token.token_id for token in found)
        raise BadInput(f"several tokens begin with {start!r}: {ids}")
    return found[0]


def _words(given: list[str] | None) -> list[str] | None:
    """The parts of options that may be repeated and hold several each."""
    if given is None:
        return None
    return [word.strip() for one in given for word in one.split(",") if word.strip()]


def _state(token: "AccessToken") -> str:
    if token.revoked_at is not None:
        return "revoked"
    expired = token.expires_at is not None and token.expires_at <= time.time()
    return "expired" if expired else "active"


def _described(token: "AccessToken", config: "Config") -> str:
    rooms = "all" if token.rooms is None else ", ".join(token.rooms)
    lines = [
        f"{token.token_id}  ({_state(token)})" + (f"  {token.label}" if token.label else ""),
        f"  acts as  {token.agent_id or config.bot_user_id}",
        f"  scopes   {', '.join(token.scopes)}",
        f"  rooms    {rooms}",
        f"  made     {_when(token.created_at)}",
        f"  expires  {_when(token.expires_at) or 'never'}",
    ]
    return "\n".join(lines)


def _fields(token: "AccessToken") -> dict[str, object]:
    return {**token.told(), "state": _state(token)}


def _when(moment: float | None) -> str:
    """A Unix time in UTC (RFC 3339), "" for none."""
    return "" if moment is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))

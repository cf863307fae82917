"""`letta-matrix rotate-tokens`: other secrets between homeserver and bridge."""

import asyncio
import re
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from letta_matrix.cli.faults import BadInput, Failure
from letta_matrix.cli.options import ConfigOption, DataOption, config_path, text_in
from letta_matrix.common.private_files import write_private
from letta_matrix.common.program import typed

if TYPE_CHECKING:
    from letta_matrix.config import Config

_NAMES = ("as_token", "hs_token")
_EARLIER = re.compile(r"^[ \t]*earlier_(?:as|hs)_token:.*\n?", re.MULTILINE)


def rotate_tokens(
    config: ConfigOption = None,
    data: DataOption = None,
    finish: Annotated[
        bool,
        typer.Option("--finish", help="Let the earlier tokens count no more."),
    ] = False,
) -> None:
    """Write other tokens for homeserver and bridge into config.yaml and registration.yaml. The
    bridge goes on with the earlier ones until the homeserver has read the new ones, and takes
    both until you say --finish. With `up`, stop it before: its next start uses the new ones."""
    from letta_matrix.config import load_config
    from letta_matrix.stack.lock import LOCK, exclusive

    path = config_path(config, data)
    settings = load_config(path)
    is_stack = (settings.directory / LOCK).exists()
    with ExitStack() as held:
        if is_stack:
            held.enter_context(exclusive(settings.directory))
        if finish:
            _finish(path, settings)
        else:
            _begin(path, settings, keeps=not is_stack)


def _begin(path: Path, settings: "Config", *, keeps: bool) -> None:
    from letta_matrix.stack.registration import registration_text

    if settings.appservice.earlier_as_token is not None:
        again = typed(["rotate-tokens", "--finish"])
        raise BadInput(f"{path}: the tokens are being changed already; `{again}` ends that first")
    # Blank ones would count in the place of those that are written.
    text, registration = _EARLIER.sub("", text_in(path)), path.parent / "registration.yaml"
    new = {name: secrets.token_hex(32) for name in _NAMES}
    for name in _NAMES:
        old = getattr(settings.appservice, name).get_secret_value()
        text = _with_another(path, text, name, (old, new[name]), keeps=keeps)
    # Whoever is killed in between begins anew: the configuration says what is under way.
    write_private(registration, registration_text(settings, **new))
    write_private(path, text)
    if not keeps:
        print(f"Wrote other tokens into {path} and {registration}. Start `up`.")
        return
    print(
        f"""Wrote other tokens into {path} and {registration} (both hold secrets: mode 0600).
Next, in this order:
  1. Restart the bridge. It takes the old and the new ones from then on.
  2. Let the homeserver read {registration}, and restart it.
  3. {typed(["rotate-tokens", "--finish", "-c", str(path)])}"""
    )


def _finish(path: Path, settings: "Config") -> None:
    if settings.appservice.earlier_as_token is None:
        raise BadInput(f"{path}: there are no earlier tokens; without --finish other ones are made")
    asyncio.run(_check_known(settings))
    write_private(path, _EARLIER.sub("", text_in(path)))
    print(f"The homeserver uses the new tokens; {path} has the earlier ones no more.")
    print("Restart the bridge: until then it would still take them.")


def _with_another(path: Path, text: str, name: str, tokens: tuple[str, str], *, keeps: bool) -> str:
    """The text with the second of two tokens, and below it the first, which it has. Raises
    BadInput."""
    old, new = tokens
    line = re.compile(
        rf"^([ \t]*){name}:[ \t]*(['\"]?){re.escape(old)}\2[ \t]*(#.*)?$", re.MULTILINE
    )
    if len(line.findall(text)) != 1:
        raise BadInput(
            f"{path}: expected one line `{name}: ...` with the token that is in use; where it "
            "comes from the environment, it has to be changed there"
        )
    kept = r"\n\1earlier_" + name + r": \g<2>" + re.escape(old).replace("\\", "") + r"\g<2>"
    return line.sub(rf"\1{name}: '{new}'" + (kept if keeps else ""), text)


async def _check_known(settings: "Config") -> None:
    """Raises Failure while the homeserver does not know the new token."""
    from mautrix.api import ClientPath, Method
    from mautrix.errors import MatrixRequestError

    from letta_matrix.access.route import route_to
    from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
    from letta_matrix.matrix.pacing import Pacer

    # Without the earlier one, which would do as well.
    token = settings.appservice.as_token.get_secret_value()
    homeserver = Homeserver(settings.homeserver.url, token, Pacer(1.0), route_to(settings))
    try:
        await homeserver.request(Method.GET, ClientPath.v3.account.whoami, give_up_after=0)
    except (MatrixRequestError, HomeserverUnavailable) as error:
        raise Failure(
            f"the homeserver does not use the new tokens yet, so the earlier ones stay: {error}"
        ) from None
    finally:
        await homeserver.close()

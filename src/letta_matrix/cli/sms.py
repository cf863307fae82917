"""`letta-matrix sms`: pairs a phone with the line, and tells what the phone's bridge needs."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from letta_matrix.cli.faults import BadInput, Failure
from letta_matrix.cli.options import ConfigOption, DataOption, JsonOption, settings_in

if TYPE_CHECKING:
    from letta_matrix.config import Config, SmsSettings
    from letta_matrix.portals.provisioning import Provisioning, Step

T = TypeVar("T")

FlowArgument = Annotated[
    str, typer.Argument(metavar="FLOW", help="google (an account's cookies) or qr (a code).")
]
CookiesOption = Annotated[
    Path | None,
    typer.Option(
        "--cookies",
        metavar="FILE",
        help="A JSON object with what the Google account's login asks for; - is standard input.",
        show_default=False,
    ),
]
LoginArgument = Annotated[str, typer.Argument(metavar="LOGIN", help="One phone; default: all.")]
RelayOption = Annotated[
    bool, typer.Option("--relay", help="For a person's own phone, through a relay.")
]


commands = typer.Typer(help="Pair a phone with the phone line.", no_args_is_help=True)


@commands.command("login")
def login(
    flow: FlowArgument = "google",
    cookies: CookiesOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Pair a phone: shows the emoji to tap, or the code to scan, and waits."""
    from letta_matrix.portals.provisioning import FLOWS

    if flow not in FLOWS:
        raise BadInput(f"{flow!r}: the flows are {' and '.join(FLOWS)}")
    settings = settings_in(config, data)

    async def work(line: "Provisioning") -> str:
        step = await line.start(flow)
        while not step.login:
            _show(step)
            step = await line.go_on(step, _values(step, cookies))
        return step.login

    paired = _ask(settings, work, "sms.login")
    print(f"The phone is paired: {paired}")


@commands.command("status")
def status(
    config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Tell which phones are paired, and how they are."""
    settings = settings_in(config, data)
    found = _ask(settings, lambda line: line.logins())
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2))
    elif not found:
        print("no phone is paired yet: letta-matrix sms login")
    for one in found if not as_json else ():
        print(f"{one.login_id}  {one.name}  {one.state or 'unknown'}  {one.reason}".rstrip())


@commands.command("logout")
def logout(
    login_id: LoginArgument = "all", config: ConfigOption = None, data: DataOption = None
) -> None:
    """Unpair the phone."""
    _ask(settings_in(config, data), lambda line: line.logout(login_id), "sms.logout")
    print("unpaired")


@commands.command("contacts")
def contacts(
    config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """List whom the phone knows."""
    found = _ask(settings_in(config, data), lambda line: line.contacts())
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2))
        return
    for one in found:
        print(f"{', '.join(one.numbers) or '(no number)'}  {one.name}  {one.user_id}")


@commands.command("bridge-config")
def bridge_config(
    relay: RelayOption = False, config: ConfigOption = None, data: DataOption = None
) -> None:
    """Print what belongs into mautrix-gmessages' own config.yaml. It holds the secret."""
    from letta_matrix.cli.gmessages import bridge_settings

    settings = settings_in(config, data)
    print(bridge_settings(settings, _line_of(settings), relay=relay), end="")


def _line_of(config: "Config") -> "SmsSettings":
    if config.sms is None:
        raise BadInput("no phone line is configured: add `sms` to config.yaml (docs/how-to/sms.md)")
    return config.sms


def _ask(config: "Config", work: "Callable[[Provisioning], Awaitable[T]]", changes: str = "") -> T:
    """What the bridge answers; what `changes` something is noted in the audit log. Raises
    BadInput, Failure."""
    from letta_matrix.cli.database import open_existing
    from letta_matrix.cli.own_tokens import noted
    from letta_matrix.portals.provisioning import Provisioning, ProvisioningFault

    line = _line_of(config)

    async def asked() -> T:
        if changes:
            # What cannot be noted is not done.
            async with open_existing(config):
                pass
        try:
            done = await work(Provisioning(line, config.homeserver.domain))
        except ProvisioningFault as fault:
            raise Failure(str(fault)) from None
        if changes:
            await noted(config, changes, {"line": line.line})
        return done

    return asyncio.run(asked())


def _show(step: "Step") -> None:
    if step.instructions:
        print(step.instructions)
    if step.shows == "qr":
        print("\nShow this text as a QR code, as `qrencode -t ANSIUTF8 TEXT` does:\n")
    if step.data:
        print(f"  {step.data}\n", flush=True)


def _values(step: "Step", cookies: Path | None) -> dict[str, str]:
    if not step.wants:
        return {}
    if cookies is not None:
        return _from_file(step, cookies)
    print(f"Sign in at {step.url} and copy these cookies from the browser; they do not show.")
    return {one: typer.prompt(one, hide_input=True) for one in step.wants}


def _from_file(step: "Step", path: Path) -> dict[str, str]:
    from letta_matrix.common.json_fields import mapping, parse_json

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    given = mapping(parse_json(text))
    # Nothing of it is repeated: whoever has these has the account.
    if any(not isinstance(given.get(one), str) for one in step.wants):
        raise BadInput(f"{path}: should be a JSON object with {', '.join(step.wants)}")
    return {key: str(value) for key, value in given.items()}

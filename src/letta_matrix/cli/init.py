"""`letta-matrix init`: config.yaml and registration.yaml for your own homeserver."""

import re
import secrets
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from letta_matrix.cli.faults import BadInput
from letta_matrix.cli.options import warn
from letta_matrix.cli.secrets import without_password
from letta_matrix.common.addresses import is_address
from letta_matrix.common.loopback import is_loopback
from letta_matrix.common.program import typed

_HTTP = ("http", "https")
_APPSERVICE = "http://127.0.0.1:29377"
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - another machine is to reach us
_USER_ID = re.compile(r"@[^:\s]+:\S+")


_KEY_HINT = (
    "If runtime {place} asks for a key: write it as `api_key` below it into config.yaml, or "
    "set LETTA_MATRIX__RUNTIMES__{place}__API_KEY.\n"
)


def init(
    homeserver: Annotated[
        str, typer.Option(help="The homeserver's URL as this machine reaches it.")
    ] = "",
    domain: Annotated[str, typer.Option(help="Its server name, as in @you:domain.")] = "",
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="Where agents live: ws://... is an App Server, https://... a Letta API, "
            "https://.../v1 an OpenAI-compatible endpoint. Repeatable."
        ),
    ] = None,
    admin: Annotated[
        list[str] | None, typer.Option(help="A person who manages it: @you:domain. Repeatable.")
    ] = None,
    appservice: Annotated[
        str, typer.Option(help="The URL at which the homeserver reaches the bridge.")
    ] = _APPSERVICE,
    directory: Annotated[Path, typer.Option(help="The folder to write the files into.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    registration_only: Annotated[
        bool,
        typer.Option(
            "--registration-only",
            help="Write registration.yaml anew, from config.yaml as it is now, with its tokens.",
        ),
    ] = False,
) -> None:
    """Write config.yaml and registration.yaml, asking for what no flag says."""
    paths = directory / "config.yaml", directory / "registration.yaml"
    if registration_only:
        if homeserver or domain or runtime or admin or force or appservice != _APPSERVICE:
            raise BadInput(
                "--registration-only takes all but --directory from config.yaml: change it there"
            )
        _renew(*paths)
        return
    for path in paths:
        if path.exists() and not force:
            raise BadInput(f"{path} exists already; --force replaces it, with new tokens")
    homeserver = _url(homeserver or _ask("Homeserver URL", "http://localhost:8008"), *_HTTP)
    # People copy it from what answers: https://example.org/_matrix/client/versions.
    homeserver = homeserver.partition("/_matrix")[0]
    appservice = _reachable(_url(appservice, *_HTTP))
    domain = domain or _ask("Server name (as in @you:domain)", urlsplit(homeserver).hostname or "")
    asked = runtime or [_ask("Where agents live", "ws://127.0.0.1:4500")]
    runtimes = [_url(url, "ws", "wss", *_HTTP) for url in asked]
    admins = [_user_id(name) for name in admin or [_ask("Your Matrix id", f"@you:{domain}")]]
    settings = _settings(homeserver, domain, runtimes, admins, appservice)
    _write(settings, *paths)
    # These usually ask for a key.
    keys = [place for place, url in enumerate(runtimes) if url.startswith("http")]
    _next_steps(*paths, hostname=_hostname(appservice), keys=keys)


def _settings(
    homeserver: str, domain: str, runtimes: list[str], admins: list[str], appservice: str
) -> dict[str, object]:
    return {
        "homeserver": {"url": homeserver, "domain": domain},
        "appservice": {
            "url": appservice,
            "hostname": _hostname(appservice),
            "port": urlsplit(appservice).port or 29377,
            "as_token": secrets.token_hex(32),
            "hs_token": secrets.token_hex(32),
        },
        "runtimes": _runtimes(runtimes),
        "agents": {"room_members": admins},
        "permissions": {domain: "user", **dict.fromkeys(admins, "admin")},
    }


def _runtimes(urls: list[str]) -> list[dict[str, object]]:
    from letta_matrix.config.original import runtime_at

    found = [runtime_at(url) for url in urls]
    for place, runtime in enumerate(found):
        earlier = sum(other["type"] == runtime["type"] for other in found[:place])
        if earlier:
            runtime["name"] = f"{runtime['name']}-{earlier + 1}"
            if runtime["type"] == "app_server":
                runtime["keeper_socket"] = f"keeper-{earlier + 1}.sock"
    return found


def _hostname(appservice: str) -> str:
    """The address to listen on, so that the homeserver reaches us at `appservice`."""
    host = urlsplit(appservice).hostname or ""
    # Another machine is to reach us otherwise.
    return "127.0.0.1" if is_loopback(host) else _EVERYWHERE


def _write(settings: dict[str, object], config: Path, registration_file: Path) -> None:
    import yaml

    from letta_matrix.common.private_files import UnwritableError, write_private
    from letta_matrix.config import load_config
    from letta_matrix.stack.data import check_folders
    from letta_matrix.stack.registration import registration_text

    try:
        config.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnwritableError(config, error) from None
    check_folders([config.parent], warn)
    write_private(config, yaml.safe_dump(settings, sort_keys=False))
    write_private(registration_file, registration_text(load_config(config, {})))


def _renew(config: Path, registration_file: Path) -> None:
    """Write the registration of what `config` says now, as `run` would read it."""
    from letta_matrix.common.private_files import write_private
    from letta_matrix.config import load_config
    from letta_matrix.stack.data import check_folders
    from letta_matrix.stack.registration import registration_text

    settings = load_config(config)
    check_folders([config.parent], warn)
    text = registration_text(settings)
    if registration_file.is_file() and registration_file.read_text(encoding="utf-8") == text:
        print(f"{registration_file} is as {config} says already.")
        return
    write_private(registration_file, text)
    print(
        f"Wrote {registration_file}, with the tokens of {config}. Let Synapse read this one, and "
        "restart\nSynapse and the bridge: both read it at their start alone."
    )


def _next_steps(config: Path, registration_file: Path, *, hostname: str, keys: list[int]) -> None:
    if hostname == _EVERYWHERE:
        print(
            f"The bridge will listen on all addresses of this machine (appservice.hostname "
            f"{hostname}),\nas the homeserver reaches it from elsewhere."
        )
    print(
        f"""Wrote {config} and {registration_file} (both hold secrets: mode 0600).
{"".join(_KEY_HINT.format(place=place) for place in keys)}
Next:
  1. Let Synapse read {registration_file.absolute()} and name it in homeserver.yaml:
       app_service_config_files:
         - {registration_file.absolute()}
  2. Restart Synapse.
  3. Start the bridge:
       {typed(["run", "-c", str(config)])}
  4. Accept the invitations that the people in agents.room_members get: to the space and to
     each agent's room. The chat page does that by itself."""
    )


def _ask(question: str, suggestion: str) -> str:
    try:
        return str(typer.prompt(question, default=suggestion or None))
    except typer.Abort:
        flags = typed(["init", "--help"])
        raise BadInput(f"{question}: no answer; `{flags}` lists the flags") from None


def _url(text: str, *schemes: str) -> str:
    without_password(text, "keys go into config.yaml or the environment, once it is written")
    if not is_address(text, *schemes):
        starts = " or ".join(f"{scheme}://" for scheme in schemes)
        raise BadInput(f"{text}: expected a URL that starts with {starts}")
    return text.rstrip("/")


def _reachable(appservice: str) -> str:
    if "[" in urlsplit(appservice).netloc:
        raise BadInput(
            f"{appservice}: Synapse reaches no address of IPv6; name a host, as in "
            "http://localhost:29377"
        )
    if (path := urlsplit(appservice).path) not in ("", "/"):
        raise BadInput(f"{appservice}: the bridge listens without a path; leave off {path}")
    return appservice


def _user_id(text: str) -> str:
    if not _USER_ID.fullmatch(text):
        raise BadInput(f"{text}: expected a Matrix id such as @you:example.org")
    return text

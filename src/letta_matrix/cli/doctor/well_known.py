"""The check of what a server's name says where the server is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from letta_matrix.cli.doctor.check import check
from letta_matrix.cli.doctor.finding import Finding, Findings, fine, warning
from letta_matrix.cli.doctor.homeserver import answers_at
from letta_matrix.cli.doctor.subject import Subject, is_here
from letta_matrix.common.json_fields import Json, mapping, string_of
from letta_matrix.matrix import answers

_TIMEOUT = aiohttp.ClientTimeout(total=5)
_CLIENT, _SERVER = ".well-known/matrix/client", ".well-known/matrix/server"
_FILE = 'serve {"m.homeserver": {"base_url": "https://..."}} there'


@dataclass(frozen=True, slots=True)
class Told:
    """What a well-known address answers; `status` 0: nothing."""

    status: int = 0
    body: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@check(
    "well-known",
    shows="clients do not find the homeserver by the name in user ids; the bridge needs none",
)
async def well_known(subject: Subject) -> Finding | Findings:
    """Whether clients, and other servers, find the homeserver by the name in user ids."""
    if is_here(subject.well_known):
        return fine(f"{subject.config.homeserver.domain} is this machine: none is needed")
    told = await _ask(subject, _CLIENT)
    base = string_of(mapping((told.body or {}).get("m.homeserver")), "base_url")
    at_base = await answers_at(subject, base) if base.startswith(("http://", "https://")) else None
    other = await _ask(subject, _SERVER)
    url = f"{subject.well_known}/{_CLIENT}"
    delegated = judge_delegation(other, f"{subject.well_known}/{_SERVER}")
    return [judge_client(told, url, at_base=at_base), *([delegated] if delegated else [])]


def judge_client(told: Told, url: str, *, at_base: bool | None) -> Finding:
    """By `/.well-known/matrix/client` (spec: Well-known URI); `at_base` is whether a homeserver
    answers where it leads, None where that was not to be asked."""
    if told.status in (0, 404):
        return fine(f"none at {url}: people type the homeserver's address into their clients")
    if told.status != 200 or told.body is None:
        return warning(f"{url} answers HTTP {told.status} with no JSON object", _FILE)
    base = string_of(mapping(told.body.get("m.homeserver")), "base_url")
    if not base.startswith(("http://", "https://")) or answers.words(base) != base:
        return warning(f"{url} names no address of a homeserver (m.homeserver.base_url)", _FILE)
    if at_base is False:
        return warning(
            f"{url} leads to {base}, where no homeserver answers",
            "correct the address there, or let the proxy at that address pass on /_matrix",
        )
    if told.headers.get("Access-Control-Allow-Origin") != "*":
        return warning(
            f"{url} has no header Access-Control-Allow-Origin: *",
            "let the web server send it there",
            shows="clients in browsers, the chat page's among them, do not find the homeserver",
        )
    return fine(f"clients are led to {base}")


def judge_delegation(told: Told, url: str) -> Finding | None:
    """By `/.well-known/matrix/server` (server-server API, Resolving server names); None: there is
    nothing to say of it."""
    if told.status in (0, 404):
        return None
    name = string_of(told.body or {}, "m.server")
    if told.status != 200 or not name or not _is_server(name):
        return warning(
            f"{url} names no server (m.server)",
            'serve {"m.server": "matrix.example.org:443"} there, or nothing at all',
            shows="people of other servers cannot write to agents",
        )
    return fine(f"other servers are led to {answers.words(name)}")


def _is_server(name: str) -> bool:
    try:
        parts = urlsplit(f"//{name}")
        return bool(parts.hostname) and parts.port != 0 and parts.netloc == name
    except ValueError:
        return False


async def _ask(subject: Subject, path: str) -> Told:
    route = subject.homeserver.route
    try:
        response, body = await route.ask("GET", URL(subject.well_known) / path, _TIMEOUT)
    except (aiohttp.ClientError, TimeoutError, ValueError, answers.ForeignAnswer):
        return Told()
    found = answers.parsed(body)
    told = None if found is None else dict(found)
    return Told(response.status, told, dict(response.headers))

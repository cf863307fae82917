"""Checks of the homeserver itself: whether it is there, and which it is."""

import asyncio
from collections.abc import Collection
from typing import Any

import aiohttp
from mautrix.api import ClientPath, Method
from mautrix.errors import MatrixRequestError
from yarl import URL

from letta_matrix.app.reach import HANGS, PING_SPEC
from letta_matrix.cli.doctor.check import check
from letta_matrix.cli.doctor.finding import Finding, fine, found, trouble, warning
from letta_matrix.cli.doctor.subject import Subject
from letta_matrix.cli.doctor.tls import speaks_tls
from letta_matrix.cli.doctor.tried import older, tried
from letta_matrix.common.json_fields import as_texts, mapping, string_of
from letta_matrix.common.program import typed
from letta_matrix.matrix import answers
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.requests import HomeserverUnavailable
from letta_matrix.matrix.spec_versions import speaks

_TIMEOUT = aiohttp.ClientTimeout(total=10)
_HANGS_AFTER = 5.0
_ADDRESS = (
    "see whether it runs, and whether homeserver.url in config.yaml is its address as this machine "
    "reaches it: `curl` it with /_matrix/client/versions behind it"
)


@check(
    "homeserver",
    shows="nothing works: agents get no rooms, and answer nobody",
    vital="homeserver",
)
async def homeserver(subject: Subject) -> Finding:
    """Whether it answers where `homeserver.url` leads."""
    try:
        async with asyncio.timeout(_HANGS_AFTER):
            await _versions(subject)
    except MatrixRequestError as error:
        return trouble(refusal(error), "see what stands at homeserver.url")
    except TimeoutError:
        return await _misnamed(subject) or found(HANGS)
    except HomeserverUnavailable as error:
        if subject.is_embedded and not subject.stack_runs:
            up = typed(["up", "--data", str(subject.config.directory)])
            return trouble("its stack does not run", f"start it: `{up}`")
        return await _misnamed(subject) or trouble(str(error), _ADDRESS)
    return fine(f"it answers at {subject.config.homeserver.url}")


async def _misnamed(subject: Subject) -> Finding | None:
    """Whether http:// is written for https://, or the reverse. Synapse hangs where it is spoken
    to by TLS and has none."""
    url = URL(subject.config.homeserver.url)
    host, port = url.host or "", url.port or 0
    # Without TLS.
    if url.scheme == "https" and await answers_at(subject, _written(url, "http")):
        right = _written(url, "http")
        return trouble(
            f"homeserver.url is {_written(url, 'https')}, and who listens there has no TLS",
            f"write http:// there ({right}), or the address of the proxy that has TLS",
        )
    if url.scheme == "http" and await speaks_tls(host, port):
        return trouble(
            f"homeserver.url is {_written(url, 'http')}, and who listens there wants TLS",
            f"write https:// there: {_written(url, 'https')}",
        )
    return None


async def answers_at(subject: Subject, base: str) -> bool:
    """Whether a homeserver answers at an address."""
    try:
        url = URL(f"{base.rstrip('/')}/{ClientPath.versions}")
        _, body = await subject.homeserver.route.ask("GET", url, _TIMEOUT)
    except (aiohttp.ClientError, TimeoutError, ValueError, answers.ForeignAnswer):
        return False
    return "versions" in (answers.parsed(body) or {})


def _written(url: URL, scheme: str) -> str:
    """With this scheme, at the same port."""
    return str(url.with_scheme(scheme).with_port(url.port)).rstrip("/")


@check(
    "homeserver version",
    shows="what the bridge asks for is refused (M_UNRECOGNIZED)",
    needs=("homeserver",),
)
async def version(subject: Subject) -> Finding:
    """Whether it can do what the bridge needs, and was tried with it."""
    specs = as_texts((await _versions(subject)).get("versions"))
    return judge_version(await _software(subject), specs)


def judge_version(software: str, specs: Collection[str]) -> Finding:
    """By the homeserver's own words, such as `Synapse/1.163.2`, "" for none, and the versions of
    Matrix that it speaks."""
    name, _, number = software.partition("/")
    called = f"{name} {number}".strip() or "a homeserver that does not say what it is"
    known = tried("matrix-synapse")
    if name and name != "Synapse":
        return warning(
            f"it is {called}, which the bridge was not tried with",
            "see what is known of it (docs/how-to/other-homeservers.md); Synapse is what the "
            "bridge is made for",
            shows="perhaps not at all",
        )
    if not speaks(specs, PING_SPEC):
        return warning(
            f"{called} speaks no Matrix {PING_SPEC}: it lacks the ping, by which the bridge "
            "knows at once that it is reached",
            "upgrade the homeserver",
            shows="only in that such a trouble is told a minute or two later",
        )
    if older(number, known):
        return warning(
            f"{called} is older than what the bridge is tried with ({known})",
            "upgrade it when you can",
            shows="perhaps not at all",
        )
    return fine(f"{called}; tried with Synapse {known or 'of this year'}")


async def _versions(subject: Subject) -> dict[str, Any]:
    anybody = subject.homeserver.with_token("")
    shape = answers.having("versions", list)
    return await anybody.request(Method.GET, ClientPath.versions, give_up_after=0, shape=shape)


async def _software(subject: Subject) -> str:
    """Its name and version, as its answers or its federation tell; "" where a proxy hides it."""
    server = subject.homeserver
    base = URL(server.url)
    try:
        response, _ = await server.route.ask("GET", base / "_matrix/client/versions", _TIMEOUT)
        if (told := response.headers.get("Server", "")).startswith("Synapse/"):
            return answers.words(told.split(" ")[0], 60)
        path = base / "_matrix/federation/v1/version"
        _, body = await server.route.ask("GET", path, _TIMEOUT)
    except (aiohttp.ClientError, TimeoutError, answers.ForeignAnswer):
        return ""
    named = mapping((answers.parsed(body) or {}).get("server"))
    parts = (string_of(named, "name"), string_of(named, "version").split(" ")[0])
    return answers.words("/".join(filter(None, parts)), 60)

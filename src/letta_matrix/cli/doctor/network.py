"""Checks of ports, proxies and TLS."""

import asyncio
import errno
import ssl
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from letta_matrix.cli.doctor import tls
from letta_matrix.cli.doctor.check import check
from letta_matrix.cli.doctor.finding import Finding, Findings, fine, trouble, warning
from letta_matrix.cli.doctor.subject import Subject, is_here, is_private
from letta_matrix.common.connections.listening import PortTakenError, check_free
from letta_matrix.common.side_by_side import side_by_side
from letta_matrix.config import (
    AppServerRuntime,
    Config,
    LettaApiRuntime,
    MemoryRuntime,
    OpenAICompatibleRuntime,
    Runtime,
)

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@check("bridge", shows="agents answer nobody")
async def bridge(subject: Subject) -> Finding:
    """Whether it runs, and answers."""
    api = subject.config.api
    if subject.health is not None:
        version, status = (subject.health.get(key) for key in ("version", "status"))
        return fine(f"it runs: letta-matrix {version}, {status}; what it says is told below")
    if subject.stranger:
        return trouble(
            f"another program answers at {api.hostname}:{api.port} (`api.port`): nothing that "
            "it says is believed",
            f"`ss -ltnp | grep :{api.port}` names it: end it, or write another port into "
            "config.yaml",
            shows="the bridge does not start, or what its pages show is not its own",
        )
    if await asyncio.to_thread(lambda: subject.holds_database):
        return trouble(
            f"it has its database open, and does not answer at {api.hostname}:{api.port}",
            "see its log; if it hangs, start it again. If it was started with other settings "
            "(`api.port`), give them here too",
        )
    return fine("it does not run; what a running one would say is looked at from here")


@check("ports", shows="the bridge does not start", vital="connections")
async def ports(subject: Subject) -> Finding | Findings:
    """Whether they are free for the bridge, or it has them."""
    places = subject.config.listens
    named = ", ".join(str(port) for _, port in places)
    if subject.health is not None:
        return fine(f"the bridge has them: {named}")
    if twice := {port for _, port in places if [one for _, one in places].count(port) > 1}:
        return trouble(
            f"port {min(twice)} is named for two things in config.yaml",
            "give appservice.port, api.port, mcp.port and mcp.websocket_port one each",
        )
    taken = [found for place in places if (found := await asyncio.to_thread(_taken, place))]
    return taken or fine(f"free for the bridge: {named}")


def _taken(place: tuple[str, int]) -> Finding | None:
    try:
        check_free([place])
    except PortTakenError as error:
        cause = error.__context__
        says = str(error).partition(";")[0]
        number = cause.errno if isinstance(cause, OSError) else None
        return judge_port(says, number, place[1])
    return None


def judge_port(says: str, number: int | None, port: int) -> Finding:
    """Why a port cannot be had, by the system's error number."""
    if number == errno.EADDRINUSE:
        return trouble(
            says,
            f"another program has it, perhaps another letta-matrix: end that one (`ss -ltnp | grep "
            f":{port}` names it), or write another port into config.yaml",
        )
    if number == errno.EACCES:
        return trouble(says, "ports below 1024 are for root: write a higher one into config.yaml")
    return trouble(says, "write an address of this machine as `hostname` into config.yaml")


@check("proxies", shows="the bridge does not get to its servers, or by a way that nobody meant")
async def proxies(subject: Subject) -> Findings:
    """Whether the environment's proxies are in the way."""
    return list(judge_proxies(subject.environment, subject.config))


def judge_proxies(environment: Mapping[str, str], config: Config) -> Iterator[Finding]:
    """By the usual variables, whose values are not shown: they may hold a password. The homeserver
    and App Servers are never asked through a proxy, Letta's and OpenAI's APIs are."""
    names = [one for one in environment if one.lower() in _PROXIES and environment[one]]
    named = ", ".join(sorted(names))
    if not names:
        yield fine("the environment names none")
        return
    if odd := [one for one in names if not _is_proxy(environment[one])]:
        yield warning(
            f"{', '.join(sorted(odd))} holds no address of a proxy",
            "it should be like http://proxy.example.org:3128",
            shows="runtimes behind it cannot be reached",
        )
        return
    direct = [one for one in (config.homeserver.url, *_app_servers(config)) if not is_private(one)]
    if direct:
        yield warning(
            f"{named} is set, and the bridge does not ask {', '.join(direct)} through it",
            "let this machine reach them without; a proxy that has to be there belongs before them",
            shows="where only the proxy leads out, they cannot be reached",
        )
    through = [
        one.url
        for one in config.runtimes
        if isinstance(one, LettaApiRuntime | OpenAICompatibleRuntime) and not is_here(one.url)
    ]
    if through:
        yield fine(f"{', '.join(through)} is asked through {named}, unless NO_PROXY names it")
    elif not direct:
        yield fine(f"{named} is set; nothing is asked through it")


def _app_servers(config: Config) -> list[str]:
    return [_address(one) for one in config.runtimes if one.type == "app_server"]


def _address(runtime: Runtime) -> str:
    """Where it is, or its keeper, as an address with a scheme."""
    if isinstance(runtime, MemoryRuntime):
        return ""
    if not isinstance(runtime, AppServerRuntime) or runtime.keeper is None:
        return runtime.url
    return runtime.keeper if "://" in runtime.keeper else f"tcp://{runtime.keeper}"


def _is_proxy(value: str) -> bool:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


@check("TLS", shows="the server is refused, and nothing of it works")
async def certificates(subject: Subject) -> Finding | Findings:
    """Whether the certificates of what is asked, and of what others ask, are good."""
    config, trusted = subject.config, subject.homeserver.route.tls
    urls: dict[str, tuple[ssl.SSLContext | None, str]] = {}
    urls |= dict.fromkeys(_addresses(config), (None, ""))
    urls[config.homeserver.url] = (trusted, "homeserver.ca_file")

    async def look(url: str) -> Finding:
        return await tls.judged(url, *urls[url])

    secured = [one for one in urls if one.startswith(("https://", "wss://", "tls://"))]
    results = await side_by_side(look, secured)
    return [*results, *judge_plain(list(urls))] or fine("none is asked, all is on this machine")


def judge_plain(urls: Sequence[str]) -> Iterator[Finding]:
    """Which addresses lead to other machines without TLS."""
    for url in urls:
        if url.startswith(("http://", "ws://", "tcp://")) and not is_private(url):
            yield warning(
                f"{url} is another machine, without TLS",
                "keep it inside a private network, or put a proxy with TLS before it "
                "(docs/how-to/proxies.md)",
                shows="whoever is on the way reads tokens and messages",
            )


def _addresses(config: Config) -> list[str]:
    """What is asked, and what clients ask."""
    public = [config.api.homeserver_url, config.api.public_url, config.mcp.public_url]
    runtimes = [_address(one) for one in config.runtimes if one.type != "memory"]
    return [config.homeserver.url, *runtimes, *(one for one in public if one is not None)]

"""Downloads from the content repository: limits, redirects, refusals, breakdowns."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from tests.waiting import Clock, settled, within

from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.media import MediaFault, download, human_size
from letta_matrix.matrix.pacing import Pacer
from letta_matrix.matrix.requests import _READ_TIMEOUT

GHOST = "@agent_1:test"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Repository:
    """Answers downloads with whatever a test says, and remembers the requests."""

    answers: list[Answer] = field(default_factory=list[Answer])
    requests: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    port: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "")
        self.requests.append((request.path, request.query.get("user_id", ""), token))
        return await (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])(request)


def whole(data: bytes, status: int = 200, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=data, status=status, headers=headers)

    return answer


def refusal(status: int, errcode: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"errcode": errcode, "error": "secret path"}, status=status)

    return answer


async def chunked(request: web.Request) -> web.StreamResponse:
    """A body without a length that never ends."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(10_000):
        try:
            await response.write(b"x" * 1000)
        except ConnectionError:
            break
    return response


async def broken_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"x")
    assert request.transport is not None
    request.transport.abort()
    return response


@pytest.fixture
async def repository() -> AsyncGenerator[Repository]:
    repository = Repository()
    app = web.Application()
    app.router.add_get("/{path:.*}", repository.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    repository.port = int(runner.addresses[0][1])
    yield repository
    await runner.cleanup()


@pytest.fixture
async def client(repository: Repository) -> AsyncGenerator[Homeserver]:
    client = Homeserver(
        f"http://127.0.0.1:{repository.port}", "as-secret", Pacer(edits_per_second=1000)
    )
    yield client
    await client.close()


async def patient(work: Coroutine[Any, Any, bytes], clock: Clock) -> bytes:
    """What comes of it after its pauses."""
    task = asyncio.create_task(work)
    await clock.until(task.done)
    return await task


async def test_a_file_is_read_as_the_ghost(repository: Repository, client: Homeserver) -> None:
    repository.answers = [whole(b"data")]
    assert await download(client, GHOST, "mxc://example.org:8448/aB_-9", 4) == b"data"
    path = "/_matrix/client/v1/media/download/example.org:8448/aB_-9"
    assert repository.requests == [(path, GHOST, "Bearer as-secret")]


@pytest.mark.parametrize(
    "mxc",
    [
        "https://example.org/a",
        "mxc://example.org",
        "mxc://example.org/",
        "mxc://example.org/a/b",
        "mxc://example.org/../../admin",
        "mxc://example.org/a?user_id=@x:y",
        "mxc://user@example.org/a",
        "mxc://exa mple.org/a",
        "mxc:///a",
        "mxc://example.org/a\n",
        "",
    ],
)
async def test_only_addresses_of_matrix(
    mxc: str, repository: Repository, client: Homeserver
) -> None:
    with pytest.raises(MediaFault, match="not one of Matrix"):
        await download(client, GHOST, mxc, 100)
    assert repository.requests == []


@pytest.mark.parametrize("answer", [whole(b"x" * 1001), chunked])
async def test_no_more_than_the_limit_is_read(
    answer: Answer, repository: Repository, client: Homeserver
) -> None:
    repository.answers = [answer]
    with pytest.raises(MediaFault, match=r"larger than 1\.0 kB"):
        await download(client, GHOST, "mxc://test/1", 1000)
    assert await download(client, GHOST, "mxc://test/1", 1000, cut=True) == b"x" * 1000


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (refusal(404, "M_NOT_FOUND"), "does not have it"),
        (refusal(403, "M_FORBIDDEN"), r"refused it \(M_FORBIDDEN\)"),
        (refusal(413, "M_TOO_LARGE"), r"refused it \(M_TOO_LARGE\)"),
    ],
)
async def test_a_refusal_is_for_good(
    answer: Answer, reason: str, repository: Repository, client: Homeserver
) -> None:
    repository.answers = [answer]
    with pytest.raises(MediaFault, match=reason) as fault:
        await download(client, GHOST, "mxc://test/1", 100)
    assert len(repository.requests) == 1
    assert "secret" not in str(fault.value)


@pytest.mark.parametrize(
    "answer",
    [refusal(429, "M_LIMIT_EXCEEDED"), refusal(504, "M_NOT_YET_UPLOADED"), whole(b"", 502)],
)
async def test_what_may_pass_is_tried_again_briefly(
    answer: Answer, repository: Repository, client: Homeserver, clock: Clock
) -> None:
    repository.answers = [answer, broken_off, whole(b"data")]
    assert await patient(download(client, GHOST, "mxc://test/1", 100), clock) == b"data"
    repository.answers = [answer]
    with pytest.raises(MediaFault, match="does not give it out now"):
        await patient(download(client, GHOST, "mxc://test/1", 100), clock)
    assert len(repository.requests) == 6


async def test_a_silent_homeserver_is_given_up(
    repository: Repository, client: Homeserver, clock: Clock
) -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    repository.answers = [silent]
    clock.stop()
    downloading = asyncio.create_task(download(client, GHOST, "mxc://test/1", 100))
    for number in (1, 2, 3):
        await clock.until(lambda tries=number: len(repository.requests) == tries, 0.1)
        clock.advance(_READ_TIMEOUT - 5)
        await settled(downloading)
        assert len(repository.requests) == number
        clock.advance(5)
    with pytest.raises(MediaFault, match="does not give it out now"):
        await within(downloading)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "me:secret@127.0.0.1"])
async def test_a_redirect_is_not_followed(
    repository: Repository, client: Homeserver, clock: Clock, host: str
) -> None:
    elsewhere = f"http://{host}:{repository.port}/inside"
    repository.answers = [whole(b"", 307, Location=elsewhere)]
    with pytest.raises(MediaFault, match="does not give it out now"):
        await patient(download(client, GHOST, "mxc://test/1", 100), clock)
    assert {path for path, *_ in repository.requests} == {
        "/_matrix/client/v1/media/download/test/1"
    }


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (12_345, "12 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (1_234_567, "1.2 MB"),
        (2_000_000_000, "2,000 MB"),
    ],
)
def test_sizes_for_people(size: int, shown: str) -> None:
    assert human_size(size) == shown


@pytest.mark.parametrize(
    ("versions", "flags", "falls_back"),
    [
        (["v1.5"], [], True),
        (["v1.5", "v1.11"], [], False),
        (["v1.5"], ["org.matrix.msc3916"], False),
    ],
)
async def test_older_addresses_are_for_older_homeservers(
    repository: Repository,
    client: Homeserver,
    versions: list[str],
    flags: list[str],
    falls_back: bool,
) -> None:
    """A worker or a proxy that does not pass media on knows nothing of the newer address either."""

    async def told(_: web.Request) -> web.StreamResponse:
        unstable = dict.fromkeys(flags, True)
        return web.json_response({"versions": versions, "unstable_features": unstable})

    repository.answers = [refusal(404, "M_UNRECOGNIZED"), told, whole(b"data")]
    work = download(client, GHOST, "mxc://test/abc", 4)
    if falls_back:
        assert await work == b"data"
        return
    with pytest.raises(MediaFault, match="M_UNRECOGNIZED"):
        await work
    assert not [path for path, *_ in repository.requests if "/media/v3/" in path]

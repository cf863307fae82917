"""Files that go out through the REST API: in whose name they are fetched, and from where alone."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import web

from letta_matrix.access.principal import Principal, Scope
from letta_matrix.doors.rest.downloading import Found, forward
from letta_matrix.doors.rest.problems import Problem
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.pacing import Pacer

FILE = "/_matrix/client/v1/media/download/test/file"
MOVED = "/_matrix/client/v1/media/download/test/moved"
HOLDER = Principal("token:1", "", frozenset({Scope.READ}))


class Stage:
    """A homeserver with a file, and one that leads elsewhere; `asked` are paths with tokens."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.homeserver: Any = None

    async def answer(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "")
        self.asked.append((request.path, request.query.get("user_id", ""), token))
        if request.path == MOVED:
            raise web.HTTPFound("/elsewhere")
        return web.Response(body=b"a file", content_type="text/plain")

    async def fetched(self, media_id: str, homeserver: Homeserver, user_id: str) -> bytes:
        intent = homeserver.acting_as(user_id)
        caller = SimpleNamespace(intent=intent, user_id=user_id)
        api: Any = SimpleNamespace(
            toolbox=SimpleNamespace(caller=Mock(return_value=caller)),
            config=SimpleNamespace(homeserver=SimpleNamespace(url=self.homeserver.url)),
            homeserver=self.homeserver,
        )
        async with AsyncExitStack() as opened:
            answer = await forward(api, HOLDER, Found(f"mxc://test/{media_id}"), opened)
            return b"".join([bytes(one) async for one in answer.body_iterator])  # type: ignore


@pytest.fixture
async def stage() -> AsyncGenerator[Stage]:
    stage, app = Stage(), web.Application()
    app.router.add_get("/{path:.*}", stage.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    stage.homeserver = Homeserver(url, "ours", Pacer(1))
    yield stage
    await stage.homeserver.close()
    await runner.cleanup()


async def test_whoever_has_logged_in_comes_with_their_own_token(stage: Stage) -> None:
    theirs = stage.homeserver.with_token("carls")
    assert await stage.fetched("file", theirs, "@carl:test") == b"a file"
    assert await stage.fetched("file", stage.homeserver, "@letta:test") == b"a file"
    assert stage.asked == [
        (FILE, "@carl:test", "Bearer carls"),
        (FILE, "@letta:test", "Bearer ours"),
    ]


async def test_nobody_is_led_elsewhere(stage: Stage) -> None:
    with pytest.raises(Problem, match="does not give out the file"):
        await stage.fetched("moved", stage.homeserver, "@letta:test")
    assert [path for path, _, _ in stage.asked] == [MOVED]

"""The provisioning API of the phone's bridge, when it is not as it should be."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from tests.doubles.gmessages.matrix import Json, Matrix
from tests.doubles.gmessages.portals import Phone, Portals, Rules
from tests.doubles.gmessages.provisioning import Provisioning as Double
from tests.servers import free_port
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.common.sureness import Sure
from letta_matrix.config import SmsSettings
from letta_matrix.portals.provisioning import (
    ANSWERS_WITHIN,
    Provisioning,
    ProvisioningFault,
    Step,
    Why,
)

LINE, NUMBER = "@letta_sms:test", "+15551234567"
SECRET = "s3cret-of-the-bridge"
COOKIES: Json = dict.fromkeys(("SID", "HSID", "SSID", "OSID", "APISID", "SAPISID"), "x")


class Bridge:
    """The double's API without a homeserver, and our client to it."""

    def __init__(self, http: aiohttp.ClientSession, port: int) -> None:
        matrix = Matrix(http, "http://127.0.0.1:9", "", "test")
        portals = Portals(matrix, Rules({LINE: "user", "@no:test": "relay"}), Phone())
        self.double = Double(matrix, portals, SECRET)
        self.url = f"http://127.0.0.1:{port}"

    def client(
        self, line: str = LINE, secret: str = SECRET, bot: str = "", sure: Sure | None = None
    ) -> Provisioning:
        return Provisioning(
            SmsSettings.model_validate(
                {
                    "bot": bot or "@gmessagesbot:test",
                    "ghosts": r"@gmessages_(\d+\.\d+):test",
                    "line": line,
                    "provisioning": {"url": self.url, "secret": secret},
                }
            ),
            "test",
            sure=sure,
        )

    def answers(self, body: object, status: int = 200) -> None:
        """Every request gets this from now on."""

        def answer(_: web.Request) -> web.StreamResponse:
            if isinstance(body, bytes):
                return web.Response(body=body, status=status)
            return web.json_response(body, status=status)

        self.double.odd = answer


@asynccontextmanager
async def listening(app: web.Application, port: int) -> AsyncGenerator[None]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    try:
        yield
    finally:
        await runner.cleanup()


@pytest.fixture
async def bridge(http: aiohttp.ClientSession) -> AsyncGenerator[Bridge]:
    port = free_port()
    made, app = Bridge(http, port), web.Application()
    app.add_subapp("/_matrix/provision", made.double.app())
    async with listening(app, port):
        yield made


async def fault_of(work: Awaitable[object]) -> ProvisioningFault:
    with pytest.raises(ProvisioningFault) as caught:
        await work
    assert SECRET not in str(caught.value)
    return caught.value


async def test_an_account_and_an_emoji_pair_a_phone(bridge: Bridge) -> None:
    line = bridge.client()
    assert await line.logins() == []
    step = await line.start("google")
    assert (step.kind, set(step.wants), step.shows) == ("cookies", set(COOKIES), "")
    step = await line.go_on(step, COOKIES)
    assert (step.shows, step.data) == ("emoji", "\U0001f98a")
    bridge.double.tapped.set()
    step = await line.go_on(step, {})
    (phone,) = await line.logins()
    assert (phone.login_id, phone.state) == (step.login, "CONNECTED")
    await line.logout()
    assert await line.logins() == []


async def test_a_code_is_shown_until_it_is_scanned(bridge: Bridge) -> None:
    line = bridge.client()
    step = await line.start("qr")
    assert (step.shows, step.data) == ("qr", "https://pair.test/#abc")
    waiting = asyncio.create_task(line.go_on(step, {}))
    await eventually(lambda: len(bridge.double.requests) == 2)
    assert not waiting.done()
    bridge.double.tapped.set()
    assert (await waiting).login


async def test_who_is_not_sure_to_act_changes_nothing(bridge: Bridge) -> None:
    asked = asyncio.Event()

    async def sure() -> None:
        asked.set()
        await asyncio.Event().wait()

    line = bridge.client(sure=sure)
    assert await line.logins() == []
    starting = asyncio.create_task(line.start("qr"))
    await within(asked.wait())
    await settled()
    assert not starting.done()
    starting.cancel()
    assert len(bridge.double.requests) == 1


async def test_refusals_say_what_to_do(bridge: Bridge) -> None:
    line = bridge.client()
    assert "provisioning.shared_secret" in str(await fault_of(bridge.client(secret="x").logins()))
    assert "bridge-config" in str(await fault_of(bridge.client("@letta_no:test").logins()))
    told = await fault_of(line.contacts())
    assert (told.why, "sms login" in str(told)) == (Why.LOGGED_OUT, True)
    step = await line.start("google")
    assert "Phone not responding" in str(await fault_of(line.go_on(step, {"SID": "x"})))
    gone = Step("none", step.step_id, step.kind)
    assert (await fault_of(line.go_on(gone, {}))).why is Why.REFUSED


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"<html>welcome</html>", 200),
        (b"", 200),
        (b"bad gateway", 502),
        ([1, 2], 200),
        ({"contacts": "many"}, 200),
        (b"{" + b" " * 2_000_001 + b"}", 200),
        ({"login_id": "x"}, 200),
        ({"homeserver": "test", "bridge_bot": "@gmessagesbot:test", "logins": "x"}, 200),
        ("", 302),
    ],
)
async def test_nonsense_is_an_outage(bridge: Bridge, body: object, status: int) -> None:
    bridge.answers(body, status)
    line = bridge.client()
    calls: list[Callable[[], Awaitable[object]]] = [line.contacts, lambda: line.start("qr")]
    for call in calls:
        assert (await fault_of(call())).why is Why.UNAVAILABLE
    # Of whose phones it tells is not said in most of these.
    assert (await fault_of(line.logins())).why in (Why.UNAVAILABLE, Why.FOREIGN)


async def test_what_is_somebody_elses_is_not_taken(bridge: Bridge) -> None:
    line = bridge.client()
    assert (await fault_of(bridge.client(bot="@other:test").logins())).why is Why.FOREIGN
    stranger: Json = {"mxid": "@ann:test", "dm_room_mxid": "!a:test"}
    other: Json = {
        "mxid": "@gmessages_1.2:test",
        "identifiers": ["tel:+15550000009"],
        "dm_room_mxid": "!a:test",
    }
    for told in (stranger, other):
        bridge.answers(told)
        assert (await fault_of(line.talk_with(NUMBER))).why is Why.FOREIGN
    bridge.answers({"contacts": [stranger]})
    assert (await fault_of(line.contacts())).why is Why.FOREIGN
    bridge.answers(other | {"identifiers": [f"tel:{NUMBER}"], "dm_room_mxid": ""})
    assert (await fault_of(line.talk_with(NUMBER))).why is Why.UNAVAILABLE


async def test_a_bridge_that_is_away_or_slow_is_told_of(
    bridge: Bridge, clock: Clock, http: aiohttp.ClientSession
) -> None:
    nobody = Bridge(http, free_port())
    away = await fault_of(nobody.client().logins())
    assert (away.why, "cannot be reached" in str(away)) == (Why.UNAVAILABLE, True)
    line = bridge.client()
    step = await line.start("qr")
    waiting = asyncio.create_task(line.go_on(step, {}))
    await eventually(lambda: len(bridge.double.requests) == 2)
    clock.advance(ANSWERS_WITHIN + 1)
    assert not waiting.done()
    clock.advance(240.0)
    assert "has not answered" in str(await fault_of(waiting))

"""A login reads no more than its person may now, and guesses keep nobody else out."""

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.builders import always, config_for, message
from tests.fake_homeserver import FakeHomeserver
from tests.servers import free_port
from tests.stage import Stage
from tests.unit.api_stage import stage_on
from tests.waiting import Clock, eventually, settled

from letta_matrix.access.accounts import Accounts
from letta_matrix.access.login_limits import _SLOW
from letta_matrix.access.login_sessions import MOST, RECHECK, LoginSessions
from letta_matrix.access.refusals import TooOften, Unauthorized
from letta_matrix.access.secrets import token_id_of
from letta_matrix.app.doors import Doors
from letta_matrix.doors.rest.compat_login import Login, Logins
from letta_matrix.doors.rest.problems import Problem
from letta_matrix.matrix.intent import Intent

ROOM, OTHER = "!1:test", "!2:test"
HOME = "10.0.0.1"


class People:
    """Accounts at a homeserver, all with the password `right`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.live: set[str] = set()
        self.owners: dict[str, str] = {}
        self.status = 0
        self.looks = 0
        self.rooms_read = asyncio.Event()
        self.rooms_told = asyncio.Event()
        self.rooms_told.set()
        monkeypatch.setattr(Accounts, "ask", self._ask)
        monkeypatch.setattr(Intent, "joined_rooms", self._rooms)
        monkeypatch.setattr(Intent, "state", self._state)

    async def _ask(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        match path:
            case "login" if body["password"] == "right":
                given = f"syt_{len(self.live)}"
                self.live.add(given)
                self.owners[given] = body["identifier"]["user"]
                return 200, {"user_id": body["identifier"]["user"], "access_token": given}
            case "login":
                return 403, {"errcode": "M_FORBIDDEN"}
            case "joined_rooms":
                self.rooms_read.set()
                await self.rooms_told.wait()
                return 200, {"joined_rooms": [ROOM, OTHER]}
            case "logout":
                self.live.discard(token)
                return 200, {}
            case _:
                self.looks += 1
                if self.status:
                    return self.status, {}
                if token not in self.live:
                    return 401, {"errcode": "M_UNKNOWN_TOKEN"}
                return 200, {"user_id": self.owners[token]}

    async def _rooms(self) -> list[str]:
        return [ROOM, OTHER]

    async def _state(self, *_: str) -> dict[str, str]:
        return {"history_visibility": "shared"}


class Front:
    """The API, and logins from addresses."""

    def __init__(self, stage: Stage) -> None:
        doors = Doors(stage.config, stage.parts, dict, always)
        self.stage, self.services = stage, doors._api_services()
        self.logins = Logins(self.services)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(doors.rest()), base_url="http://127.0.0.1"
        )

    async def log_in(self, peer: str = HOME, user: str = "@bob:test", word: str = "right") -> Login:
        return await self.logins.login(user, word, peer)

    async def guess(self, peer: str = HOME, user: str = "@bob:test") -> None:
        with pytest.raises(Problem, match="does not accept"):
            await self.log_in(peer, user, "wrong")

    async def whoami(self, login: Login) -> httpx.Response:
        headers = {"Authorization": f"Bearer {login.secret}"}
        return await self.http.get("/api/v1/whoami", headers=headers)

    async def rooms(self, login: Login) -> list[str]:
        return (await self.whoami(login)).json()["rooms"]


@pytest.fixture
def people(monkeypatch: pytest.MonkeyPatch) -> People:
    return People(monkeypatch)


@pytest.fixture
async def front(fake: FakeHomeserver, database_file: Path, people: People) -> AsyncGenerator[Front]:
    permissions = {"test": "user", "@boss:test": "admin"}
    async with stage_on(fake, database_file, permissions=permissions) as stage:
        made = Front(stage)
        yield made
        await made.http.aclose()
        await made.services.logins.close()
    assert people.live == set()


def membership(how: str, user: str = "@bob:test", room: str = ROOM) -> dict[str, Any]:
    content = {"membership": how}
    return message(type="m.room.member", state_key=user, room_id=room, content=content)


async def test_a_person_who_was_removed_reads_on(front: Front) -> None:
    login = await front.log_in()
    assert await front.rooms(login) == [ROOM, OTHER]
    await front.stage.admit(membership("leave", "@eve:test"), membership("join"))
    assert await front.rooms(login) == [ROOM, OTHER]
    # How they came, told late.
    await front.stage.admit(membership("invite"))
    assert await front.rooms(login) == [ROOM, OTHER]
    await front.stage.admit(membership("ban"))
    assert await front.rooms(login) == [OTHER]
    # Who comes back logs in again.
    await front.stage.admit(membership("join"))
    assert await front.rooms(login) == [OTHER]
    assert await front.rooms(await front.log_in()) == [ROOM, OTHER]


async def test_a_person_who_is_removed_while_they_log_in_reads_on(
    front: Front, people: People
) -> None:
    people.rooms_told.clear()
    login = asyncio.create_task(front.log_in())
    await people.rooms_read.wait()
    await front.stage.admit(membership("leave"))
    people.rooms_told.set()
    assert await front.rooms(await login) == [OTHER]


@pytest.mark.parametrize("user", ["@bob:test", "@boss:test"])
async def test_a_person_whose_account_is_gone_reads_on(
    front: Front, people: People, clock: Clock, user: str
) -> None:
    clock.stop()
    login = await front.log_in(user=user)
    people.live.clear()
    clock.advance(RECHECK)
    assert (await front.whoami(login)).status_code == 401
    assert (await front.whoami(login)).status_code == 401
    assert people.looks == 1


async def test_an_account_is_asked_after_only_so_often(
    front: Front, people: People, clock: Clock
) -> None:
    clock.stop()
    login = await front.log_in()
    clock.advance(RECHECK)
    answers = await asyncio.gather(*(front.whoami(login) for _ in range(20)))
    assert {one.status_code for one in answers} == {200}
    assert people.looks == 1


async def test_a_homeserver_that_does_not_tell_lets_nobody_in(
    front: Front, people: People, clock: Clock
) -> None:
    clock.stop()
    login = await front.log_in()
    people.status = 502
    clock.advance(RECHECK)
    assert (await front.whoami(login)).status_code == 503
    people.status = 0
    assert (await front.whoami(login)).status_code == 200


async def test_a_login_of_another_process_is_refused(front: Front) -> None:
    login = await front.log_in()
    token = await front.stage.stores.tokens.get(str(token_id_of(login.secret)))
    assert token is not None
    later = LoginSessions(front.stage.config, front.stage.parts.toolbox.event_bus)
    with pytest.raises(Unauthorized, match="log in again"):
        await later.session_of(token)


async def test_logins_have_ended_where_another_process_listens(front: Front) -> None:
    login, stage = await front.log_in(), front.stage
    api, mcp = {"port": free_port()}, {"enabled": False}
    later = Doors(config_for(stage.config.directory, api=api, mcp=mcp), stage.parts, dict, always)
    await later.open()
    await later.close()
    token = await stage.stores.tokens.get(str(token_id_of(login.secret)))
    assert token is not None
    assert token.expires_at is not None
    assert token.expires_at <= time.time()
    assert (await front.whoami(login)).status_code == 401


async def test_logins_without_end_leave_no_sessions_without_end(
    front: Front, people: People
) -> None:
    first = await front.log_in()
    for _ in range(MOST):
        await front.log_in()
    assert len(people.live) == MOST
    assert (await front.whoami(first)).status_code == 401


async def test_one_who_guesses_locks_out_nobody_but_themselves(front: Front, clock: Clock) -> None:
    clock.stop()
    for user in ("@bob:test", "@Bob:test", "BOB", "@bOB:test", "boB"):
        await front.guess("10.6.6.6", user)
    with pytest.raises(TooOften):
        await front.log_in("10.6.6.6")
    await front.log_in()
    await front.log_in("10.6.6.6", "@ann:test")


async def test_guesses_from_everywhere_only_slow_the_owner_down(
    front: Front, people: People, clock: Clock
) -> None:
    clock.stop()
    for number in range(20):
        await front.guess(f"10.6.6.{number}")
    login = asyncio.create_task(front.log_in())
    await settled()
    clock.advance(_SLOW - 0.1)
    await settled()
    assert not people.live
    clock.advance(0.2)
    await eventually(login.done)
    assert (await front.whoami(await login)).status_code == 200


@pytest.mark.parametrize("peer", ["10.6.6.6", "2001:db8::{:x}"])
async def test_guesses_at_many_accounts_are_limited_by_address(
    front: Front, clock: Clock, peer: str
) -> None:
    clock.stop()
    for number in range(60):
        await front.guess(peer.format(number), f"@user{number}:test")
    with pytest.raises(TooOften):
        await front.log_in(peer.format(99))
    await front.log_in()


async def test_right_passwords_are_not_counted(front: Front, clock: Clock) -> None:
    clock.stop()
    for _ in range(70):
        await front.log_in()


def test_only_addresses_are_trusted_as_proxies(tmp_path: Path) -> None:
    api = {"trusted_proxies": ["127.0.0.1", "10.0.0.7/8", "fd00::/8"]}
    assert config_for(tmp_path, api=api).api.trusted_proxies == [
        *("127.0.0.1/32", "10.0.0.0/8", "fd00::/8")
    ]
    with pytest.raises(ValueError, match="should be an address or a network"):
        config_for(tmp_path, api={"trusted_proxies": ["*"]})

"""Acting as users that the original has made."""

import asyncio
from typing import Any, cast

from tests.fake_homeserver import FakeHomeserver
from tests.waiting import settled

from letta_matrix.agents.migration.old_users import old_users
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.server_admin import ServerAdmin

OLD, OTHER = "@newton:test", "@leibniz:test"


class Admin:
    """Opens sessions, slowly; `opened` are whose."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        self.opened: list[str] = []

    async def session_of(self, who: str) -> str:
        self.opened.append(who)
        number = len(self.opened)
        await self.goes_on.wait()
        return f"session {number}"


async def test_agents_that_had_one_user_share_its_session(
    fake: FakeHomeserver, homeserver: Homeserver
) -> None:
    admin = Admin()
    async with old_users(homeserver, "@letta:test", cast("ServerAdmin", admin)) as users:
        waiting: Any = asyncio.gather(*(users.acting_as(who) for who in (OLD, OLD, OTHER)))
        await settled(waiting)
        admin.goes_on.set()
        await waiting
        assert sorted(admin.opened) == [OTHER, OLD]
    ended = [one for one in fake.requests if one.line.endswith("/logout")]
    assert len(ended) == 2

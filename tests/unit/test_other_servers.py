"""Servers of others that do not answer keep nobody waiting."""

import asyncio

import pytest
from mautrix.errors import MatrixRequestError
from tests.fake_homeserver import FakeHomeserver
from tests.waiting import Clock, eventually

from letta_matrix.matrix.errors import ServerSilent, refusal
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.media import MediaAway, download

GHOST = "@agent_1:test"
THEM = "@them:away.example"


async def test_an_invitation_elsewhere_has_ten_seconds(
    fake: FakeHomeserver, homeserver: Homeserver, clock: Clock
) -> None:
    fake.hold("/invite")
    with pytest.raises(ServerSilent) as caught:
        await clock.through(Intent(homeserver, GHOST).invite("!1:test", THEM))
    assert refusal(caught.value) == (
        "away.example did not answer within 10 s: if that is its name, try again later"
    )
    assert isinstance(caught.value, MatrixRequestError)


async def test_one_of_ours_is_no_other_servers_affair(
    fake: FakeHomeserver, homeserver: Homeserver, clock: Clock
) -> None:
    released = fake.hold("/invite")
    inviting = asyncio.create_task(Intent(homeserver, GHOST).invite("!1:test", "@ann:test"))
    await eventually(lambda: fake.matching("/invite"))
    clock.advance(20)
    released.set()
    await inviting


async def test_an_alias_elsewhere_leads_nowhere(
    fake: FakeHomeserver, homeserver: Homeserver, clock: Clock
) -> None:
    fake.hold("/directory")
    looking = Intent(homeserver, GHOST).resolve_alias("#room:away.example")
    assert await clock.through(looking) is None


async def test_a_file_elsewhere_has_twenty_seconds(
    fake: FakeHomeserver, homeserver: Homeserver, clock: Clock
) -> None:
    fake.hold("/download")
    with pytest.raises(MediaAway, match=r"away\.example, where it is, did not answer within 20 s"):
        await clock.through(download(homeserver, GHOST, "mxc://away.example/1", 10))

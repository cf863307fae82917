"""What new agents are measured against asks the homeserver for the same as the bridge."""

import json
import re
from typing import cast

import aiohttp
from bench.bare_agents import BareAgents
from bench.homeserver import Homeserver as Measured
from bench.homeserver import Service
from tests.agents_site import Site
from tests.builders import PERSON
from tests.fake_homeserver import FakeHomeserver

from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database

_ID = re.compile(r"[@!#$][\w.=-]+:[\w.]+|mxc:[\w/]+")
_CALLED = re.compile(r'"(name|topic|room_alias_name|username|displayname|via|bytes)": [^,}]+')


class _Floor:
    """As much of a run's homeserver as new agents need."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.floor = Service("floor", 0, "floor_bot", "as-secret", "hs-secret")


def _asked(fake: FakeHomeserver) -> list[str]:
    """What it was asked for since it was asked last, whoever it is about."""
    told = [f"{one.line} {json.dumps(one.body, sort_keys=True)}" for one in fake.requests]
    asked = [_ID.sub("ID", _CALLED.sub(r"\1", one)) for one in told]
    fake.requests.clear()
    # Once a process, whichever agents there are.
    return sorted(one for one in asked if "capabilities" not in one)


async def test_the_floor_of_new_agents_is_what_the_bridge_asks_for(
    fake: FakeHomeserver, database: Database, directory: AgentDirectory, homeserver: Homeserver
) -> None:
    site = Site(database, directory, homeserver, room_members=[PERSON])
    await site.home.ensure()
    await site.new()
    fake.requests.clear()
    await site.reconcile()
    ours = _asked(fake)
    await site.provisioner.close()
    async with aiohttp.ClientSession() as http:
        bare = BareAgents(cast("Measured", _Floor(fake.url)), http, PERSON)
        await bare.prepare()
        fake.requests.clear()
        await bare.make(range(1), 1)
    assert _asked(fake) == ours

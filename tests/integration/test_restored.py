"""A bridge that is put back from a backup, between a homeserver and a runtime that went on."""

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import yaml
from tests.integration.bridge_world import (
    DATABASE,
    Person,
    World,
    bridge_on,
    new_agent,
    settings_on,
)
from tests.scripts import obey, until
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.access.principal import Scope
from letta_matrix.access.secrets import issue
from letta_matrix.cli.backup.contents import Source
from letta_matrix.cli.backup.restoring import PutBack, Target, restore
from letta_matrix.cli.backup.taking import take
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import TurnEvent, TurnRequest

SECRET = "a passphrase"


async def test_nothing_is_repeated_and_nothing_lost(
    homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    goes_on = asyncio.Event()
    config, file = tmp_path / "bridge/config.yaml", tmp_path / "letta.age"
    config.parent.mkdir()
    config.write_text(yaml.safe_dump(settings_on(homeserver, ann)))

    def script(request: TurnRequest) -> Iterable[TurnEvent | float]:
        if request.text.startswith("think"):
            yield from until(goes_on)
        yield from obey(request)

    runtime, later = MemoryRuntime(script=script), new_agent("Bea")
    async with bridge_on(homeserver, config.parent, ann, runtime) as world:
        room = await world.meet()
        leaked, kept = await _token(world), await _token(world)
        for text in ("think", "and then"):
            await ann.send(room.room_id, text)
        await eventually(lambda: world.asked(room))
        source = Source(config, world.config)
        await asyncio.to_thread(take, source, file, SECRET, servers=False, work=1)
        goes_on.set()
        await ann.send(room.room_id, "since")
        said = ["echo: think", "echo: and then", "echo: since"]
        assert await ann.answers(room, 3) == said
        other = await world.meet(later)
        await ann.send(other.room_id, "hello")
        assert await ann.answers(other, 1) == ["echo: hello"]
        assert await world.bridge.app.stores.tokens.revoke(leaked, time.time())
    await ann.send(room.room_id, "while it was down")
    done: PutBack = await asyncio.to_thread(restore, file, SECRET, Target(config), replace=True)
    assert (done.ended.tokens, done.ended.seen) == (1, True)
    async with bridge_on(homeserver, config.parent, ann, runtime) as world:
        said += ["echo: while it was down"]
        assert await ann.answers(room, 4) == said
        assert (await world.find(later)).room_id == other.room_id
        for one, number in ((room, 5), (other, 2)):
            await ann.send(one.room_id, "again")
            assert (await ann.answers(one, number))[number - 1 :] == ["echo: again"]
            rooms = await world.as_user(one.ghost).get("/joined_rooms")
            assert rooms["joined_rooms"] == [one.room_id]
        assert [one.text for one in world.asked(room)] == [
            *("think", "and then", "since", "while it was down", "again")
        ]
        valid = [one for one in await world.bridge.app.stores.tokens.all() if not one.revoked_at]
        assert [one.token_id for one in valid] == [kept]
        assert (await world.health())["agents_in_trouble"] == 0
        path = f"/rooms/{quote(room.room_id)}/aliases"
        assert (await world.bot.get(path))["aliases"] == [f"#{room.ghost[1:]}"]
    (aside,) = done.aside
    assert (aside / DATABASE).is_file()


async def _token(world: World) -> str:
    _, token = issue(agent_id="", scopes=frozenset({Scope.READ}), label="")
    await world.bridge.app.stores.tokens.add(token)
    return token.token_id

"""Tokens on a real bridge: made and revoked by the command, used over HTTP, checked at the door."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from tests.fake_issuer import AUDIENCE, FakeIssuer, ec_key
from tests.integration.bridge_world import (
    Json,
    Room,
    World,
    bridge_on,
    new_agent,
    new_person,
)
from tests.integration.toolbox_bench import bench_on
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.access.mirror import AuditMirror
from letta_matrix.matrix.identifiers import room_alias
from letta_matrix.matrix.intent import Intent
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.toolbox.faults import ToolError


@dataclass(frozen=True)
class Doors:
    """A running bridge, its configuration's file, and an issuer that it trusts."""

    world: World
    file: Path
    issuer: FakeIssuer
    ada: Room

    async def tokens(self, *arguments: str) -> str:
        """What `letta-matrix tokens` prints."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "letta_matrix", "tokens", *arguments, "-c", str(self.file)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode().strip()

    async def call(
        self, token: str, tool: str, /, *, headers: Json | None = None, **arguments: Any
    ) -> tuple[int, Json]:
        """Call a tool over the REST API."""
        url = f"http://127.0.0.1:{self.world.config.api.port}/api/v1/tools/{tool}"
        sent = {"Authorization": f"Bearer {token}", **(headers or {})}
        async with self.world.person.http.post(url, json=arguments, headers=sent) as response:
            return response.status, await response.json(content_type=None)


@pytest.fixture(scope="module")
async def doors(
    homeserver: Homeserver, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Doors]:
    directory = tmp_path_factory.mktemp("doors")
    issuer = FakeIssuer()
    issuer.keys = {"one": ec_key()}
    await issuer.start()
    oidc = {"issuer": issuer.url, "audience": AUDIENCE, "admins": ["ann"]}
    person = await new_person(homeserver)
    runtime = MemoryRuntime()
    access = {"oidc": oidc, "audit_room": await person.create_room("@letta:localhost")}
    async with bridge_on(homeserver, directory, person, runtime, access=access) as world:
        settings: Json = world.config.model_dump(mode="json")
        settings["appservice"] |= {"as_token": homeserver.as_token, "hs_token": homeserver.hs_token}
        (directory / "config.yaml").write_text(yaml.safe_dump(settings))
        ada = await world.meet(new_agent())
        yield Doors(world, directory / "config.yaml", issuer, ada)
    await issuer.stop()


async def said(doors: Doors, body: str) -> list[str]:
    """Who said something in Ada's room."""
    events = await doors.world.person.timeline(doors.ada.room_id)
    return [event["sender"] for event in events if event["content"].get("body") == body]


async def test_a_token_acts_as_its_agent_in_its_rooms_until_it_is_revoked(doors: Doors) -> None:
    alias = room_alias(doors.ada.agent.agent_id, "localhost")
    limits = ("--scope", "read,write", "--rooms", alias, "--label", "kitchen")
    token = await doors.tokens("create", "--as", doors.ada.agent.agent_id, *limits)
    status, sent = await doors.call(
        token, "matrix_send_message", room_id=doors.ada.room_id, message="from a token"
    )
    assert status == 200, sent
    assert await said(doors, "from a token") == [doors.ada.ghost]

    ghost = doors.world.as_user(doors.ada.ghost)
    elsewhere = await ghost.create_room()
    status, problem = await doors.call(token, "matrix_send_message", room_id=elsewhere, message="x")
    assert (status, problem["type"].rpartition("/")[2]) == (403, "forbidden")
    status, problem = await doors.call(token, "matrix_create_room", name="x")
    assert status == 403
    assert "rooms" in problem["detail"]

    listed = json.loads(await doors.tokens("list", "--json"))
    (mine,) = [one for one in listed if one["label"] == "kitchen"]
    assert mine["rooms"] == [doors.ada.room_id]
    assert await doors.tokens("revoke", mine["token_id"][:8]) == f"{mine['token_id']} is revoked"
    status, problem = await doors.call(token, "matrix_whoami")
    assert (status, problem["detail"]) == (401, "The token was revoked.")


async def test_the_audit_room_is_told_what_was_done(doors: Doors) -> None:
    token = await doors.tokens("create", "--as", doors.ada.agent.agent_id, "--scope", "write")
    status, sent = await doors.call(
        token, "matrix_send_message", room_id=doors.ada.room_id, message="to be told"
    )
    assert status == 200, sent
    audit_room = str(doors.world.config.access.audit_room)

    async def told() -> list[Json]:
        return await doors.world.person.said_by(audit_room, doors.world.config.bot_user_id)

    event = quote(sent["event_id"])
    notices = await eventually(told, lambda said: any(event in str(one) for one in said))
    assert {one["content"]["msgtype"] for one in notices} == {"m.notice"}
    assert doors.ada.ghost in str(notices)


async def test_without_a_name_it_acts_as_the_bot(doors: Doors) -> None:
    token = await doors.tokens("create", "--expires", "1h")
    status, told = await doors.call(token, "matrix_whoami")
    assert (status, told["user_id"]) == (200, doors.world.config.bot_user_id)


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [("Host", "evil.example", 421), ("Origin", "https://evil.example", 403)],
)
async def test_pages_of_others_do_not_get_in(
    doors: Doors, header: str, value: str, status: int
) -> None:
    token = doors.issuer.token("one")
    answer = await doors.call(token, "matrix_whoami", headers={header: value})
    assert answer[0] == status
    slug = f"{header.lower()}-refused"
    assert answer[1]["type"] == f"https://letta-matrix.dev/problems/{slug}"


async def test_tokens_of_an_issuer(doors: Doors) -> None:
    named = doors.issuer.token("one", sub="eve", letta_agent=doors.ada.agent.agent_id)
    arguments: Json = {"room_id": doors.ada.room_id, "message": "from the issuer"}
    status, sent = await doors.call(named, "matrix_send_message", **arguments)
    assert status == 200, sent
    assert await said(doors, "from the issuer") == [doors.ada.ghost]
    status, told = await doors.call(doors.issuer.token("one"), "matrix_whoami")
    assert (status, told["user_id"]) == (200, doors.world.config.bot_user_id)
    status, problem = await doors.call(doors.issuer.token("one", aud="x"), "matrix_whoami")
    assert status == 401
    assert "`aud` does not name this server" in problem["detail"]


async def test_the_audit_room_hears_of_changes(homeserver: Homeserver, tmp_path: Path) -> None:
    async with bench_on(homeserver, tmp_path) as bench:
        ada = await bench.agent()
        bot = Intent(bench.client, bench.config.bot_user_id)
        room_id = await bench.ann.create_room(bot.user_id)
        await bot.join(room_id)
        mirror = AuditMirror(room_id, bot)
        bench.toolbox.ledger.mirror = mirror
        message: Json = {"room_id": str(ada.room_id), "message": "hi"}
        sent = await bench.call_as(ada, "matrix_send_message", **message)
        with pytest.raises(ToolError):
            await bench.call_as(ada, "matrix_send_message", rooms=set(), **message)
        await bench.call_as(ada, "matrix_whoami")
        await bench.toolbox.ledger.close()
        await mirror.close()

        async def told() -> list[Json]:
            return await bench.ann.said_by(room_id, bot.user_id)

        (notice,) = await eventually(told, bool)
        assert notice["content"]["msgtype"] == "m.notice"
        first, second = notice["content"]["body"].split("\n")
        who = f"token:test as {ada.user_id} (api): matrix_send_message"
        assert first.startswith(f"{who} in {ada.room_id} https://matrix.to/#/")
        assert sent["event_id"][1:] in first
        assert second == f"{who}: forbidden"

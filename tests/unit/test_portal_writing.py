"""No tool but those made for it writes into a talk on another network, though it is there."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.builders import PERSON, config_for, message
from tests.fake_homeserver import FakeHomeserver
from tests.portal_kit import AGENT, GHOST, PORTAL, opened, said, with_bridge
from tests.scripts import held
from tests.stage import Stage
from tests.waiting import eventually

from letta_matrix.access.principal import Scope
from letta_matrix.common.tools import ToolCall, ToolResult
from letta_matrix.operations.toolbox.asking import AskingPeople
from letta_matrix.operations.toolbox.catalogue import every_tool
from letta_matrix.operations.toolbox.questions import Questions
from letta_matrix.runtimes.protocol import TurnRequest

OWN = "!1:test"
# These show nothing to whoever talks there.
QUIET = {"matrix_mark_read", "matrix_leave"}
_VOICE = base64.b64encode(b"RIFF\0\0\0\0WAVEfmt " + bytes(40)).decode()
CHANGING = {Scope.WRITE, Scope.ROOMS}


def _picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _writing() -> list[str]:
    """The tools that change something in a room that they are given, ask_human among them."""
    tools = every_tool(AskingPeople(Questions(config_for(Path("unused")))))
    return [
        one.name
        for one in tools.values()
        if "room_id" in one.parameters["properties"]
        and (one.scope in CHANGING or one.name == "ask_human")
        and not one.read_only
        and one.name not in QUIET
    ]


@pytest.fixture
async def asked(stage: Stage, fake: FakeHomeserver) -> AsyncGenerator[Stage]:
    """An agent that is in a portal itself works on what a contact has asked there."""
    stage._settings |= {"destructive_tools": True}
    bridged, release = await with_bridge(stage, line=None), asyncio.Event()

    def script(_: TurnRequest) -> Any:
        return held(release)

    bridged.runtime.script = script
    await opened(bridged, invited=AGENT)
    fake.members[PORTAL].add(AGENT)
    question = said("show me", event_id="$question")
    fake.events.setdefault(PORTAL, []).append(question)
    await bridged.admit(question)
    await eventually(lambda: bridged.runtime.asked)
    yield bridged
    release.set()
    await bridged.idle()


def _ours(fake: FakeHomeserver) -> list[Any]:
    """What agents have put into the portal."""
    return [one for one in fake.events[PORTAL] if one["sender"] == AGENT]


async def _call(stage: Stage, tool: str, **arguments: Any) -> ToolResult:
    conversation_id = stage.runtime.asked[-1].conversation_id
    call = ToolCall("agent-1", conversation_id, "c", tool, arguments, f"r-{tool}")
    return await stage.parts.toolbox.handler("memory")(call)


async def test_every_tool_that_writes_is_refused_there(asked: Stage, fake: FakeHomeserver) -> None:
    given = {"room_id": PORTAL, "event_id": "$question", "message": "m", "key": "x", "name": "a"}
    given |= {"question": "q?", "options": ["a", "b"], "user_id": GHOST, "level": 1}
    given |= {"space_id": PORTAL, "timeout_seconds": 1, "duration_seconds": 1}
    tools = asked.parts.toolbox.tools
    told = dict[str, str]()
    for name in _writing():
        taken = {
            key: one for key, one in given.items() if key in tools[name].parameters["properties"]
        }
        if "content_base64" in tools[name].parameters["properties"]:
            taken["content_base64"] = _VOICE if name == "matrix_send_voice" else _picture()
        told[name] = (await _call(asked, name, **taken)).text
    assert {name: text for name, text in told.items() if "another network" not in text} == {}
    assert _ours(fake) == []


async def test_people_are_asked_in_the_agents_own_room(asked: Stage, fake: FakeHomeserver) -> None:
    asking = asyncio.create_task(
        _call(asked, "ask_human", question="May I?", options=["Yes", "No"])
    )
    # It listens by then.
    await eventually(lambda: fake.messages(OWN, "m.reaction")[1:])
    await asked.admit(message("Yes", OWN))
    told = json.loads((await asking).text)
    assert (told["room_id"], told["answer"], told["by"]) == (OWN, "Yes", PERSON)
    assert _ours(fake) == []


@pytest.mark.parametrize("waits_for", ["PUT .*/send/m.room.message", "GET .*/event/"])
async def test_who_answers_before_it_is_known_where_the_question_stands_has_answered(
    asked: Stage, fake: FakeHomeserver, waits_for: str
) -> None:
    released = fake.hold(waits_for)
    asking = asyncio.create_task(
        _call(asked, "ask_human", question="May I?", options=["Yes", "No"])
    )
    await eventually(lambda: fake.matching(waits_for))
    await asked.admit(message("Yes", OWN))
    released.set()
    assert json.loads((await asking).text)["answer"] == "Yes"
    await asked.admit(message("and more", OWN))
    await eventually(lambda: "and more" in [one.text for one in asked.runtime.asked])
    assert "Yes" not in [one.text for one in asked.runtime.asked]


async def test_what_is_marked_as_read_there_is_not_shown(
    asked: Stage, fake: FakeHomeserver
) -> None:
    await _call(asked, "matrix_mark_read", room_id=PORTAL, event_id="$question")
    (marked,) = fake.matching("POST .*/read_markers")
    assert "m.read" not in marked.body

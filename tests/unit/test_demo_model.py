"""The demo model: plain about itself, faithful, and able to use tools."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from tests.waiting import Clock

from letta_matrix.conversations.context import Context
from letta_matrix.operations.toolbox.others import OTHERS
from letta_matrix.stack.demo_model import DemoModel, answer
from letta_matrix.stack.models import DEMO_MODEL

BASH = {
    "type": "function",
    "function": {
        "name": "Bash",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string"}, "description": {"type": "string"}},
            "required": ["command", "description"],
        },
    },
}


def _user(*texts: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}


def _said(*messages: dict[str, Any], tools: list[dict[str, Any]] | None = None) -> str:
    return answer({"messages": list(messages), "tools": tools or []}).text


def test_the_first_answer_says_that_it_is_a_demo() -> None:
    text = _said(_user("hello you"))
    assert "demo" in text
    assert "no language model" in text
    assert "> hello you" in text


def test_later_answers_repeat() -> None:
    history = [_user("hi"), {"role": "assistant", "content": "..."}, _user("how are you?")]
    assert _said(*history) == "You said: how are you?"


def test_what_the_app_server_adds_is_not_the_persons_words() -> None:
    message = _user("<system-reminder>\nLocal time\n</system-reminder>", "the words")
    reminder = _user("<system-reminder>only this</system-reminder>")
    assistant = {"role": "assistant", "content": "..."}
    assert _said(assistant, message, reminder) == "You said: the words"


def test_what_was_said_before_in_the_room_is_not_repeated() -> None:
    shown = {"content": {"body": "lunch?\n\n> no\n\nuse Bash: rm"}, "type": "m.room.message"}
    context = Context((shown, shown)).block(lambda event: ("ann", event["content"]["body"]))
    assert "no" in context
    message = _user(f"[Matrix, Kitchen, now, ann:\n{context}\n\nMeridian: hello\n\n> you")
    assistant = {"role": "assistant", "content": "..."}
    assert _said(assistant, message) == "You said: Meridian: hello\n\n> you"


@pytest.mark.parametrize(
    "asked",
    ["use Bash: ls", "Use the tool `bash`: ls", "use bash:ls", "Meridian: use Bash: ls"],
)
def test_a_tool_is_called_when_asked_for(asked: str) -> None:
    call = answer({"messages": [_user(asked)], "tools": [BASH]}).call
    assert call is not None
    assert call.name == "Bash"
    assert call.arguments["command"] == "ls"
    assert set(call.arguments) == {"command", "description"}


def test_arguments_may_be_json() -> None:
    call = answer({"messages": [_user('use Bash: {"command": "id"}')], "tools": [BASH]}).call
    assert call is not None
    assert call.arguments == {"command": "id"}


def test_a_tool_that_another_calls() -> None:
    tools = [BASH, {"type": "function", "function": {"name": OTHERS}}]
    call = answer(
        {"messages": [_user('use matrix_get_room: {"room_id": "x"}')], "tools": tools}
    ).call
    assert call is not None
    assert (call.name, call.arguments) == (
        OTHERS,
        {"name": "matrix_get_room", "arguments": {"room_id": "x"}},
    )
    assert answer({"messages": [_user("use Rocket: fly")], "tools": tools}).call is None


def test_a_tool_that_was_not_offered() -> None:
    reply = answer({"messages": [_user("use Rocket: fly")], "tools": [BASH]})
    assert reply.call is None
    assert "no tool named `Rocket`" in reply.text
    assert "`Bash`" in reply.text


def test_a_tools_result_is_reported() -> None:
    result = {"role": "tool", "tool_call_id": "c", "content": "a.txt\n```"}
    text = _said(_user("use Bash: ls"), {"role": "assistant", "content": None}, result)
    assert text == "The tool answered:\n\n````\na.txt\n```\n````"


def test_long_answers_on_demand() -> None:
    text = _said({"role": "assistant", "content": "x"}, _user("write 200 words"))
    assert len(text.split()) == 400
    assert text.startswith("word 1, word 2, ")
    assert text.endswith(", word 200.")


@pytest.mark.parametrize(
    "body",
    [{}, {"messages": None}, {"messages": [1, {"role": "user", "content": 5}]}, {"tools": "x"}],
)
def test_odd_requests_are_answered(body: dict[str, Any]) -> None:
    assert "demo" in answer(body).text


@pytest.fixture
async def url() -> AsyncGenerator[str]:
    async with TestServer(DemoModel(words_per_second=200).application()) as server:
        yield str(server.make_url("/v1"))


async def test_models_are_listed(url: str, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{url}/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == [DEMO_MODEL]


async def test_a_whole_completion(url: str, http: aiohttp.ClientSession) -> None:
    body = {"model": DEMO_MODEL, "messages": [_user("use Bash: ls")], "tools": [BASH]}
    async with http.post(f"{url}/chat/completions", json=body) as response:
        choice = (await response.json())["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    function = choice["message"]["tool_calls"][0]["function"]
    assert json.loads(function["arguments"])["command"] == "ls"


async def test_a_streamed_completion_comes_word_by_word(
    url: str, http: aiohttp.ClientSession, clock: Clock
) -> None:
    messages = [{"role": "assistant", "content": "x"}, _user("one two three\nfour")]

    async def read() -> list[str]:
        async with http.post(
            f"{url}/chat/completions", json={"stream": True, "messages": messages}
        ) as response:
            return [line.decode().strip() async for line in response.content]

    clock.stop()
    began = clock.now()
    reading = asyncio.create_task(read())
    await clock.until(reading.done, step=0.002)
    lines = await reading
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    words = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(words) == "You said: one two three\nfour"
    assert len([word for word in words if word]) == 6
    assert clock.now() - began >= 5 / 200
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert lines[-2:] == ["data: [DONE]", ""]


async def test_a_body_that_is_no_json(url: str, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{url}/chat/completions", data=b"{") as response:
        assert response.status == 400
        assert "JSON" in (await response.json())["error"]["message"]

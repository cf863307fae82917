"""Stored messages of an App Server, read as speech; cursors; when an agent ran last."""

from typing import Any

import pytest

from letta_matrix.runtimes.app_server.activity import Activity
from letta_matrix.runtimes.app_server.connection import Connection
from letta_matrix.runtimes.app_server.speech import Place, SpeechReader, read_turns
from letta_matrix.runtimes.faults import RuntimeRefused, RuntimeUnavailable

Json = dict[str, Any]


def at(second: int) -> str:
    return f"2026-11-22T10:00:{second:02d}.000Z"


def stored(second: int, kind: str, text: str = "", otid: str = "") -> Json:
    message = {"id": f"m{second}", "date": at(second), "message_type": kind, "content": text}
    return message | ({"otid": otid} if otid else {})


def prompt(second: int, otid: str = "other", text: str = "hello") -> Json:
    return stored(second, "user_message", text, otid)


def reply(second: int, text: str) -> Json:
    return stored(second, "assistant_message", text)


def told(*messages: Json) -> list[str]:
    return [turn.text for turn in read_turns(list(messages)) if turn.text and not turn.ours]


def test_turns_are_told_apart_by_their_prompts() -> None:
    assert told(
        reply(1, "before anything known"),
        prompt(2, "$event"),
        reply(3, "ours"),
        prompt(4, "$event#1"),
        reply(5, "ours too"),
        prompt(6),
        reply(7, "one"),
        stored(8, "tool_return_message"),
        reply(9, "<system-reminder>x</system-reminder>two"),
    ) == ["one\n\ntwo"]


def test_prompts_taken_up_together_are_ours_if_one_is() -> None:
    assert told(prompt(1, "$event"), prompt(2), reply(3, "ours")) == []
    assert told(prompt(1), prompt(2, "$event"), reply(3, "ours")) == []
    assert told(prompt(1), reply(2, "x"), prompt(3, "$event"), reply(4, "ours")) == ["x"]


def test_a_reminder_is_no_prompt() -> None:
    reminder = prompt(2, "x", "<system-reminder>cut off</system-reminder>")
    assert told(prompt(1, "$event"), reminder, reply(3, "ours")) == []


def test_a_prompt_from_matrix_is_one_even_without_words_of_its_own() -> None:
    reminder = prompt(3, "$event", "<system-reminder>An image was left out.</system-reminder>")
    assert told(prompt(1), reply(2, "x"), reminder, reply(4, "ours")) == ["x"]


def test_nonsense_is_no_speech() -> None:
    odd: list[Json] = [{}, {"message_type": 5, "content": {"a": 1}}, {"date": 5, "otid": []}]
    assert told(*odd, {"message_type": "assistant_message", "content": [None, 5, "x"]}) == []


@pytest.mark.parametrize("cursor", ["x", "[]", "{}", '{"at":5}', '{"at":"later"}', "[" * 9999])
def test_odd_cursors_name_no_place(cursor: str) -> None:
    assert Place.parse(cursor) is None


def test_a_cursor_comes_back() -> None:
    place = Place(at(1), {"c1": at(0)})
    assert Place.parse(str(place)) == place
    assert Place.parse(str(Place(""))) == Place.parse("") == Place("")
    assert (place.of("c1"), place.of("c2")) == (at(0), at(1))


class Server:
    """Stands for a `Connection`: conversations by id, newest first; `asked` counts requests."""

    def __init__(self, talks: dict[str, list[Json]]) -> None:
        self.talks = talks
        self.asked: list[str] = []
        self.refuses = False
        self.breaks_after: int | None = None
        self.owners: dict[str, str] = {}
        self.counters: dict[str, int] = {"refused conversation_list": 0}

    async def call(self, kind: str, **fields: Any) -> Json:
        self.asked.append(kind)
        if kind == "agent_retrieve":
            return {"agent": {"id": "a1", "last_run_completion": None}}
        if kind == "conversation_list":
            return self._list(fields["query"])
        assert kind == "conversation_messages_list"
        return {"messages": self.talks[fields["conversation_id"]][::-1], "has_more": False}

    def _list(self, query: Json) -> Json:
        if self.refuses:
            raise RuntimeRefused("no")
        if self.breaks_after is not None and len(self.asked) > self.breaks_after:
            raise RuntimeUnavailable("it broke off")
        items = [
            {
                "id": talk,
                "agent_id": self.owners.get(talk, "a1"),
                "last_message_at": messages[-1]["date"],
            }
            for talk, messages in self.talks.items()
        ]
        items.sort(key=lambda item: item["last_message_at"], reverse=True)
        ids = [item["id"] for item in items]
        start = ids.index(query["after"]) + 1 if "after" in query else 0
        return {"conversations": items[start : start + query["limit"]]}


def connection_of(server: Server) -> Connection:
    return server  # type: ignore[return-value]


async def idle(*_: object) -> bool:
    return False


async def test_many_changed_conversations_are_told_in_several_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("letta_matrix.runtimes.app_server.speech.MAX_CONVERSATIONS", 3)
    monkeypatch.setattr("letta_matrix.runtimes.app_server.speech.LIST_PAGE", 4)
    monkeypatch.setattr(SpeechReader, "_runs", idle)
    talks = {f"c{n}": [prompt(n), reply(n + 20, f"text {n}")] for n in range(10)}
    server = Server(talks)
    reader = SpeechReader(connection_of(server))
    cursor, texts, looks = str(Place(at(0))), list[str](), 0
    while True:
        server.asked.clear()
        said = await reader.said_since("a1", cursor)
        assert len(server.asked) <= 10
        texts += [speech.text for speech in said.speeches]
        cursor, looks = said.cursor, looks + 1
        if not said.more:
            break
    assert texts == [f"text {n}" for n in range(10)]
    assert looks == 4
    assert not (await reader.said_since("a1", cursor)).speeches


async def test_the_last_run_changes_with_any_conversation() -> None:
    server = Server({"c1": [prompt(1)]})
    activity, agent = Activity(connection_of(server)), {"id": "a1"}
    await activity.look()
    first = activity.last_run(agent)
    await activity.look()
    assert activity.last_run(agent) == first
    server.talks["c2"] = [prompt(2)]
    await activity.look()
    assert activity.last_run(agent) != first
    assert activity.last_run({"id": "a2", "last_run_completion": at(9)}).startswith(at(9))


async def test_who_has_never_run_is_known_where_all_conversations_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server({"c1": [prompt(1)]})
    newborn: Json = {"id": "a2", "last_run_completion": at(1), "message_ids": []}

    async def looked() -> Activity:
        activity = Activity(connection_of(server))
        await activity.look()
        return activity

    activity = await looked()
    assert activity.last_run(newborn) == ""
    assert activity.last_run({**newborn, "id": "a1"}) != ""
    assert activity.last_run({**newborn, "message_ids": ["m1"]}) != ""
    # Who ran long ago may stand behind the pages that were read, or in none.
    for name in ("FIRST_PAGE", "MAX_PAGES"):
        monkeypatch.setattr(f"letta_matrix.runtimes.app_server.activity.{name}", 1)
    assert (await looked()).last_run(newborn) != ""
    server.refuses = True
    assert (await looked()).last_run(newborn) != ""


async def test_a_listing_that_broke_off_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAGE", "FIRST_PAGE"):
        monkeypatch.setattr(f"letta_matrix.runtimes.app_server.activity.{name}", 1)
    server = Server({f"c{number}": [prompt(number)] for number in range(1, 5)})
    activity, agent = Activity(connection_of(server)), {"id": "a4"}
    server.owners = {"c1": "a4"}
    server.breaks_after = 1
    with pytest.raises(RuntimeUnavailable):
        await activity.look()
    server.breaks_after = None
    await activity.look()
    assert activity.last_run(agent).startswith(at(1))


async def test_a_server_without_that_listing_is_no_failure() -> None:
    server = Server({})
    server.refuses = True
    await Activity(connection_of(server)).look()
    assert server.counters["refused conversation_list"] == 1

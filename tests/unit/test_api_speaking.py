"""Following a turn: what of its room's events is the reply's text, and when it is over."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mautrix.errors import MForbidden
from tests.builders import agent, asked_approval, message
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.conversations.new_turns import new_turn
from letta_matrix.doors.rest.following import Following, answer_of
from letta_matrix.doors.rest.problems import Problem
from letta_matrix.matrix.content import CURSOR, edit_content, text_content
from letta_matrix.matrix.event_bus import EventBus
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.operations.turn_lists import TurnLists
from letta_matrix.store.approvals import Approval, ApprovalStatus
from letta_matrix.store.outbox import OutboxEntry, OutboxKind
from letta_matrix.store.turns import Outcome, Turn, TurnStatus

ADA = agent(1, "!1:test")


@dataclass
class Services:
    """As much of the bridge as a turn that is followed needs."""

    turn: Turn = field(default_factory=lambda: new_turn(message(), ADA.agent_id, "hello"))
    entries: list[OutboxEntry] = field(default_factory=list[OutboxEntry])
    approvals: list[Approval] = field(default_factory=list[Approval])
    event_bus: EventBus = field(default_factory=EventBus)
    meanwhile: Callable[[], object] = lambda: None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def toolbox(self) -> Any:
        return SimpleNamespace(event_bus=self.event_bus)

    @property
    def turns(self) -> Any:
        return SimpleNamespace(get=self._get)

    @property
    def directory(self) -> Any:
        return SimpleNamespace(get={ADA.agent_id: ADA}.get)

    @property
    def homeserver(self) -> Any:
        return SimpleNamespace(acting_as=Ghost)

    @property
    def approval_store(self) -> Any:
        return SimpleNamespace(of_turn=self._approvals_of)

    @property
    def outbox(self) -> Any:
        return SimpleNamespace(of_turn=self._of_turn, reply_text=self._reply_text)

    @property
    def following(self) -> Following:
        services: Any = self
        return Following(services, ADA, self.turn.turn_id)

    async def _get(self, _turn_id: str) -> Turn:
        return self.turn

    async def _of_turn(self, _turn_id: str) -> list[OutboxEntry]:
        self.meanwhile()
        return self.entries

    async def _approvals_of(self, _turn_id: str) -> list[Approval]:
        return self.approvals

    async def _reply_text(self, _turn_id: str) -> str:
        return "what it said"

    def owe(self, kind: OutboxKind, text: str, event_id: str | None = None, part: int = 0) -> None:
        content = text_content(text, marker={})
        if kind is OutboxKind.FINAL:
            content = edit_content(text, target_event_id="$1", marker={}, live=False)
        number = len(self.entries)
        entry = OutboxEntry(
            f"t{number}", self.turn.turn_id, number, kind, part, "!1:test", "@x", content, event_id
        )
        self.entries.append(entry)

    def say(self, event_id: str, text: str, **fields: Any) -> None:
        """The ghost's message arrives."""
        marker = fields.pop("marker", {"turn_id": self.turn.turn_id})
        content = text_content(text, marker=marker, live=True)
        self._arrive(event_id, content, fields)

    def edit(self, event_id: str, text: str) -> None:
        marker = {"turn_id": self.turn.turn_id}
        content = edit_content(text, target_event_id=event_id, marker=marker, live=True)
        self._arrive(f"{event_id}-edit", content, {})

    def _arrive(self, event_id: str, content: dict[str, object], fields: Any) -> None:
        event = {"type": "m.room.message", "event_id": event_id, "content": content}
        self.event_bus.publish(event | {"sender": ADA.user_id, "room_id": "!1:test"} | fields)


async def next_of(texts: Any) -> str | Approval | None:
    return await within(anext(texts))


async def silence(texts: Any, clock: Clock) -> str | Approval | None:
    """What comes after 15 seconds in which nothing came; time stands still before and after."""
    waiting = asyncio.create_task(next_of(texts))
    await settled(waiting)
    clock.advance(14)
    await settled(waiting)
    clock.advance(1)
    return await waiting


async def begun(services: Services, texts: Any) -> asyncio.Task[str | Approval | None]:
    """What comes next, once it is listened for."""
    waiting = asyncio.create_task(next_of(texts))
    await eventually(lambda: services.event_bus._listeners)
    return waiting


async def test_the_text_is_that_of_all_parts_in_their_last_versions() -> None:
    services = Services()
    services.owe(OutboxKind.MESSAGE, "First", "$1")
    async with aclosing(services.following.news(60, 60)) as texts:
        assert await next_of(texts) == "First"
        services.edit("$1", "First part.")
        assert await next_of(texts) == "First part."
        services.say("$2", "Second")
        assert await next_of(texts) == "First part.\n\nSecond"
        services.turn.status = TurnStatus.DONE
        with pytest.raises(StopAsyncIteration):
            await next_of(texts)
    assert services.event_bus._listeners == []


async def test_what_was_edited_before_it_is_followed_is_new() -> None:
    services = Services()
    services.owe(OutboxKind.MESSAGE, "Fir", "$1")
    services.owe(OutboxKind.FINAL, "First part.", "$1-edit")
    services.owe(OutboxKind.MESSAGE, "Second", "$2", part=1)
    services.owe(OutboxKind.MESSAGE, "not sent", part=2)
    async with aclosing(services.following.news(60, 60)) as texts:
        assert await next_of(texts) == "First part.\n\nSecond"


async def test_what_comes_while_the_stored_is_read_is_newer() -> None:
    services = Services()
    services.owe(OutboxKind.MESSAGE, "First", "$1")
    services.meanwhile = lambda: (services.say("$2", "Second"), services.edit("$1", "First part."))
    async with aclosing(services.following.news(60, 60)) as texts:
        assert await next_of(texts) == "First part.\n\nSecond"


async def test_of_what_is_not_read_the_newest_alone_is_kept(clock: Clock) -> None:
    services = Services()
    following = services.following
    clock.stop()
    async with aclosing(following.news(60, 15)) as texts:
        assert await silence(texts, clock) is None
        for number in range(100):
            services.say(f"${number}", "of another turn", marker={"turn_id": "turn-other"})
            services.edit("$1", f"version {number}")
        kept = [value for value in vars(following).values() if hasattr(value, "__len__")]
        assert max(map(len, (one for one in kept if not isinstance(one, str)))) == 1
        assert await next_of(texts) == "version 99"


@pytest.mark.parametrize(
    "fields",
    [
        {"sender": "@eve:test"},
        {"room_id": "!2:test"},
        {"type": "m.reaction"},
        {"marker": {"turn_id": "turn-other"}},
        {"marker": {}},
        {"content": None},
        {"content": {"org.letta.matrix": "x"}},
    ],
)
async def test_what_is_none_of_its_text_is_passed_over(fields: Any) -> None:
    services = Services()
    async with aclosing(services.following.news(60, 60)) as texts:
        waiting = await begun(services, texts)
        services.say("$1", "not mine", **fields)
        services.say("$2", "Found it.")
        assert await waiting == "Found it."


async def test_notices_beside_the_reply_are_none_of_its_text() -> None:
    services = Services()
    async with aclosing(services.following.news(60, 60)) as texts:
        waiting = await begun(services, texts)
        services.say("$1", "Bash", marker={"turn_id": services.turn.turn_id, "beside": "trace"})
        services.say("$2", "Found it.")
        assert await waiting == "Found it."


async def test_an_approval_is_told_of_once_and_while_it_waits(clock: Clock) -> None:
    clock.stop()
    services = Services()
    settled = asked_approval(services.turn, "k1", status=ApprovalStatus.DENIED)
    services.approvals = [settled, asked_approval(services.turn, "k2")]
    async with aclosing(services.following.news(60, 15)) as news:
        assert await next_of(news) == services.approvals[1]
        assert await silence(news, clock) is None
        services.approvals.append(asked_approval(services.turn, "k3"))
        assert await next_of(news) == services.approvals[2]
        assert await silence(news, clock) is None


class Ghost:
    """Reads what a turn's agent has said as far as the homeserver tells it."""

    known: Any

    def __init__(self, *_: object) -> None:
        pass

    async def event(self, _room_id: str, event_id: str) -> dict[str, Any]:
        if isinstance(self.known, Exception):
            raise self.known
        return {"content": text_content(self.known[event_id], marker={}, live=True)}


@pytest.mark.parametrize(
    ("known", "status", "text"),
    [
        ({"$1": "First part.", "$2": "Second"}, TurnStatus.RUNNING, "First part.\n\nSecond"),
        (HomeserverUnavailable("away"), TurnStatus.RUNNING, "Fir\n\nSe"),
        (MForbidden(403, "no"), TurnStatus.RUNNING, "Fir\n\nSe"),
        ({}, TurnStatus.DONE, "Fir\n\nSe"),
    ],
)
async def test_a_turn_says_what_its_newest_versions_say(
    monkeypatch: pytest.MonkeyPatch, known: Any, status: TurnStatus, text: str
) -> None:
    services: Any = Services()
    services.turn.status = status
    services.owe(OutboxKind.MESSAGE, f"Fir{CURSOR}", "$1")
    services.owe(OutboxKind.MESSAGE, f"Se{CURSOR}", "$2", part=1)
    monkeypatch.setattr(Ghost, "known", known, raising=False)
    known_to = (services.homeserver, services.directory, services.turns, services.outbox)
    lists = TurnLists(*known_to, cast("Any", None))
    owed = await services.outbox.of_turn(services.turn.turn_id)
    assert await lists._text(services.turn, owed) == text


async def test_silence_is_told_of(clock: Clock) -> None:
    services = Services()
    clock.stop()
    async with aclosing(services.following.news(60, 15)) as texts:
        assert await silence(texts, clock) is None
        assert await silence(texts, clock) is None


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(Outcome.FAILED, "agent-failed"), (Outcome.STOPPED, "turn-stopped")],
)
async def test_a_turn_without_an_answer_says_why(outcome: Outcome, status: str) -> None:
    services: Any = Services()
    services.turn.outcome = str(outcome)
    services.owe(OutboxKind.NOTICE, "The model is away.")
    with pytest.raises(Problem) as caught:
        await answer_of(services, services.turn.turn_id)
    assert caught.value.slug == status
    assert caught.value.detail.endswith("The model is away.")
    assert caught.value.more["answer"] == "what it said"


async def test_an_answer_has_its_notices() -> None:
    services: Any = Services()
    services.turn.outcome = str(Outcome.ANSWERED)
    services.owe(OutboxKind.MESSAGE, "x", "$1")
    services.owe(OutboxKind.NOTICE, "I was stopped.")
    answered = await answer_of(services, services.turn.turn_id)
    assert (answered.answer, answered.event_id) == ("what it said\n\nI was stopped.", "$1")

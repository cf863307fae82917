"""What agents say by themselves is told in their rooms: all of it, once, nothing of the past."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.builders import agent, message, said_in
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage
from tests.waiting import Clock, eventually, settled

from letta_matrix.conversations.speech import UNASKED, SpeechWatch
from letta_matrix.matrix.content import MARKER
from letta_matrix.runtimes.faults import RuntimeRefused
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import Capabilities
from letta_matrix.runtimes.speech import Said
from letta_matrix.store.agents import AgentStatus
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.places import Place
from letta_matrix.store.portals import Portal

ROOM = "!1:test"


class Listener:
    """A stage whose runtime is listed whenever `heard` is called."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.start()

    def start(self) -> None:
        watch = self.stage.parts.listings.watches["memory"]
        assert watch is not None
        self.watch: SpeechWatch = watch
        self.task = asyncio.create_task(watch.run())

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def again(self) -> None:
        """The next process."""
        await self.stop()
        await self.stage.close()
        await self.begin()

    async def begin(self) -> None:
        """Another process takes over."""
        await self.stage.open()
        await self.stage.dispatcher.recover()
        self.start()

    async def heard(self) -> None:
        """A listing, and what comes of it."""
        await self.watch.listed(await self.stage.runtime.list_agents())
        await self.settled()

    async def settled(self) -> None:
        def is_settled() -> bool:
            return not self.watch._due and not self.watch._wake.is_set()

        await eventually(is_settled)
        await self.stage.idle()


@pytest.fixture
async def listener(stage: Stage) -> AsyncGenerator[Listener]:
    made = Listener(stage)
    yield made
    await made.stop()


def told(fake: FakeHomeserver, room_id: str = ROOM) -> list[str]:
    """What was said unasked in a room, without its mark."""
    bodies = [event["content"]["body"] for event in fake.messages(room_id)]
    return [body.removeprefix(UNASKED) for body in bodies if body.startswith(UNASKED)]


async def test_what_an_agent_says_by_itself_is_told_once(
    listener: Listener, fake: FakeHomeserver
) -> None:
    runtime = listener.stage.runtime
    await listener.heard()
    runtime.say("agent-1", "Good **morning**.")
    for _ in range(3):
        await listener.heard()
    (event,) = fake.messages(ROOM)
    content = event["content"]
    assert told(fake) == ["Good **morning**."]
    assert "<strong>morning</strong>" in content["formatted_body"]
    assert (event["sender"], content["msgtype"]) == ("@agent_1:test", "m.text")
    assert "in_reply_to" not in content[MARKER]
    assert content["m.mentions"] == {}
    assert fake.bodies("!2:test") == []


async def test_all_of_it_is_told_in_order(listener: Listener, fake: FakeHomeserver) -> None:
    await listener.heard()
    for number in range(3):
        listener.stage.runtime.say("agent-1", f"Number {number}.")
    listener.stage.runtime.say("agent-2", "And me.")
    await listener.heard()
    assert told(fake) == ["Number 0.", "Number 1.", "Number 2."]
    assert told(fake, "!2:test") == ["And me."]


async def test_at_first_sight_nothing_of_the_past_is_told(
    listener: Listener, fake: FakeHomeserver
) -> None:
    runtime = listener.stage.runtime
    runtime.say("agent-1", "Long ago.")
    await listener.heard()
    assert fake.bodies(ROOM) == []
    runtime.say("agent-1", "Now.")
    await listener.heard()
    assert told(fake) == ["Now."]


async def test_what_an_agent_says_first_in_its_life_is_told(
    listener: Listener, fake: FakeHomeserver
) -> None:
    await listener.heard()
    listener.stage.runtime.say("agent-1", "My first words.")
    await listener.heard()
    assert told(fake) == ["My first words."]


async def test_how_far_it_was_told_survives_a_restart(
    listener: Listener, fake: FakeHomeserver
) -> None:
    runtime = listener.stage.runtime
    await listener.heard()
    runtime.say("agent-1", "Before.")
    await listener.heard()
    await listener.stop()
    runtime.say("agent-1", "While you were away.")
    await listener.again()
    await listener.heard()
    assert told(fake) == ["Before.", "While you were away."]


async def test_who_had_not_said_all_is_heard_after_a_restart(
    listener: Listener, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def still_speaks(_: str, cursor: str | None) -> Said:
        return Said((), cursor or "", more=True)

    runtime = listener.stage.runtime
    await listener.heard()
    runtime.say("agent-1", "Whole at last.")
    with monkeypatch.context() as patched:
        patched.setattr(runtime, "said_since", still_speaks)
        await listener.heard()
    await listener.again()
    await listener.heard()
    assert told(fake) == ["Whole at last."]


async def test_what_could_not_be_sent_before_a_crash_is_sent_after_it(
    listener: Listener, fake: FakeHomeserver
) -> None:
    await listener.heard()
    sent = fake.hold("PUT .*/send/")
    listener.stage.runtime.say("agent-1", "Important.")
    await listener.watch.listed(await listener.stage.runtime.list_agents())
    await eventually(lambda: fake.matching("/send/"))
    await listener.stop()
    await listener.stage.close()
    sent.set()
    await eventually(lambda: fake.messages(ROOM))
    fake.forgetful = True
    await listener.begin()
    await listener.heard()
    assert told(fake) == ["Important."]


async def test_answers_to_people_are_not_told_again(
    listener: Listener, fake: FakeHomeserver
) -> None:
    await listener.heard()
    await listener.stage.tell(message("hello"))
    await listener.heard()
    assert fake.bodies(ROOM) == ["echo: hello"]


async def test_it_is_told_where_the_conversation_is(
    listener: Listener, fake: FakeHomeserver
) -> None:
    stage = listener.stage
    await stage.tell(message("main"), said_in("$root", "inside"))
    inside = next(one for one in stage.runtime.asked if one.text == "inside")
    await listener.heard()
    stage.runtime.say("agent-1", "A thought.", inside.conversation_id)
    stage.runtime.say("agent-1", "Elsewhere.", "conversation-of-another-client")
    await listener.heard()
    *_, thought, elsewhere = fake.messages(ROOM)
    assert "A thought." in thought["content"]["body"]
    assert thought["content"]["m.relates_to"]["rel_type"] == "m.thread"
    assert thought["content"]["m.relates_to"]["event_id"] == "$root"
    assert thought["content"]["m.relates_to"]["m.in_reply_to"] == {"event_id": "$root"}
    assert "Elsewhere." in elsewhere["content"]["body"]
    assert "m.relates_to" not in elsewhere["content"]


async def test_it_is_told_in_the_shared_room_it_belongs_to(
    listener: Listener, fake: FakeHomeserver
) -> None:
    stage = listener.stage
    await stage.stores.rooms.joined("!shared:test", "@agent_1:test", direct=True)
    await stage.tell(message("hello", "!shared:test"))
    (asked,) = stage.runtime.asked
    await listener.heard()
    stage.runtime.say("agent-1", "One more thing.", asked.conversation_id)
    await listener.heard()
    assert told(fake, "!shared:test") == ["One more thing."]
    assert fake.bodies(ROOM) == []


async def test_a_long_speech_is_told_in_parts(listener: Listener, fake: FakeHomeserver) -> None:
    await listener.heard()
    text = "\n\n".join(f"Paragraph {number}. " + "x" * 400 for number in range(150))
    listener.stage.runtime.say("agent-1", text)
    await listener.heard()
    assert len(fake.messages(ROOM)) > 1
    assert "\n\n".join(fake.bodies(ROOM)).endswith(text[-5000:])


async def test_an_outage_of_the_runtime_loses_nothing(
    listener: Listener, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = listener.stage.runtime
    await listener.heard()
    runtime.say("agent-1", "Hello?")
    listing = await runtime.list_agents()
    runtime.available = False
    await listener.watch.listed(listing)
    await listener.settled()
    assert fake.bodies(ROOM) == []
    runtime.available = True
    await listener.heard()
    assert told(fake) == ["Hello?"]


async def test_one_agents_trouble_is_not_the_others(
    listener: Listener, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = listener.stage.runtime
    said_since = runtime.said_since

    async def fails(agent_id: str, cursor: str | None) -> Said:
        if agent_id == "agent-1":
            raise RuntimeRefused("not for you")
        return await said_since(agent_id, cursor)

    await listener.heard()
    monkeypatch.setattr(runtime, "said_since", fails)
    runtime.say("agent-1", "Lost for now.")
    runtime.say("agent-2", "Heard.")
    await listener.heard()
    assert told(fake, "!2:test") == ["Heard."]
    monkeypatch.setattr(runtime, "said_since", said_since)
    await listener.heard()
    assert told(fake) == ["Lost for now."]


async def test_a_full_database_loses_nothing(
    listener: Listener, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StoreUnavailable("the database cannot be used now: disk full")

    await listener.heard()
    listener.stage.runtime.say("agent-1", "Hello?")
    with monkeypatch.context() as patched:
        patched.setattr(listener.stage.stores.database, "write", full)
        await listener.watch.listed(await listener.stage.runtime.list_agents())
        await asyncio.wait([listener.task])
    assert isinstance(listener.task.exception(), StoreUnavailable)
    listener.start()
    await listener.heard()
    assert told(fake) == ["Hello?"]


async def test_an_agent_whose_room_is_still_made_is_told_of_later(
    listener: Listener, fake: FakeHomeserver
) -> None:
    stage, directory = listener.stage, listener.stage.stores.directory
    await stage.add(3)
    await directory.change(["agent-3"], lambda one: replace(one, room_id=None))
    await listener.heard()
    stage.runtime.say("agent-3", "I am new.")
    await listener.heard()
    await directory.change(["agent-3"], lambda one: replace(one, room_id="!3:test"))
    await listener.heard()
    assert told(fake, "!3:test") == ["I am new."]


async def test_what_a_found_agent_says_before_it_has_a_room_is_told(
    listener: Listener, fake: FakeHomeserver
) -> None:
    stage, directory = listener.stage, listener.stage.stores.directory
    await stage.add(3)
    await directory.change(["agent-3"], lambda one: replace(one, room_id=None))
    stage.runtime.say("agent-3", "Long ago.")
    await listener.heard()
    stage.runtime.say("agent-3", "Before there was a room.")
    await listener.heard()
    await directory.change(["agent-3"], lambda one: replace(one, room_id="!3:test"))
    await listener.heard()
    assert told(fake, "!3:test") == ["Before there was a room."]


async def test_a_removed_agent_says_nothing(listener: Listener, fake: FakeHomeserver) -> None:
    await listener.heard()
    directory = listener.stage.stores.directory
    await directory.change(["agent-1"], lambda one: replace(one, status=AgentStatus.REMOVED))
    listener.stage.runtime.say("agent-1", "A ghost.")
    await listener.heard()
    assert fake.bodies(ROOM) == []


async def test_each_agent_is_looked_at_no_faster_than_the_interval(
    fake: FakeHomeserver, database_file: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    memory = {"type": "memory", "agents": 0, "speech_interval": 5.0}
    stage = Stage(fake, database_file, runtimes=[memory])
    await stage.open()
    await stage.add(1)
    listener = Listener(stage)
    looks = list[str]()
    said_since = stage.runtime.said_since

    async def count(agent_id: str, cursor: str | None) -> Said:
        looks.append(agent_id)
        return await said_since(agent_id, cursor)

    monkeypatch.setattr(stage.runtime, "said_since", count)
    clock.stop()
    await listener.heard()
    for number in range(10):
        stage.runtime.say("agent-1", f"{number}")
        await listener.watch.listed(await stage.runtime.list_agents())
        # Whom it may look at it looks at.
        await eventually(lambda: listener.watch._next() is None)
        clock.advance(0.45)
    await settled(listener.task)
    assert len(looks) == 1
    clock.advance(1)
    await listener.settled()
    assert len(looks) == 2
    assert told(fake) == [str(number) for number in range(10)]
    await listener.stop()
    await stage.close()


async def test_without_news_nothing_is_asked(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(agent_id: str, cursor: str | None) -> Said:
        raise AssertionError(agent_id, cursor)

    monkeypatch.setattr(listener.stage.runtime, "said_since", never)
    for _ in range(3):
        await listener.heard()
    assert not listener.task.done()


async def test_agents_of_other_runtimes_are_none_of_its_business(
    listener: Listener, fake: FakeHomeserver
) -> None:
    stage = listener.stage
    await stage.stores.directory.reserve([agent(4, runtime="other")])
    await listener.heard()
    stage.runtime.add(replace((await stage.runtime.list_agents())[0], agent_id="agent-4"))
    stage.runtime.say("agent-4", "Not mine.")
    await listener.heard()
    assert fake.bodies("!4:test") == []


@pytest.mark.parametrize("text", ["", "  \n", "half \ud83d of it", "\x00", "> quoted", "# Big"])
async def test_odd_words_stop_nobody(listener: Listener, fake: FakeHomeserver, text: str) -> None:
    await listener.heard()
    listener.stage.runtime.say("agent-1", text)
    listener.stage.runtime.say("agent-1", "After.")
    await listener.heard()
    assert len(fake.messages(ROOM)) == 2
    assert told(fake)[-1] == "After."


@pytest.mark.parametrize("reason", ["switched off", "not supported"])
async def test_where_it_is_not_wanted_nobody_watches(
    fake: FakeHomeserver, database_file: Path, reason: str
) -> None:
    off = reason == "switched off"
    memory = {"type": "memory", "agents": 0, "speech": not off}
    stage = Stage(fake, database_file, runtimes=[memory])
    stage.runtime = MemoryRuntime(capabilities=Capabilities(speech=off))
    await stage.open()
    assert stage.parts.listings.watches == {"memory": None}
    await stage.close()


async def test_nobody_on_another_network_is_told_what_is_said_unasked(
    listener: Listener, fake: FakeHomeserver
) -> None:
    stage = listener.stage
    await stage.tell(message("hello"))
    conversation_id = stage.runtime.asked[0].conversation_id
    await stage.stores.portals.learn(Portal("!portal:test", "sms", direct=True))
    there = Place("agent-1", "!portal:test")
    await stage.stores.conversations.begin(there, conversation_id, "texts")
    await listener.heard()
    stage.runtime.say("agent-1", "For my own people.", conversation_id)
    await listener.heard()
    assert told(fake) == ["For my own people."]
    assert fake.messages("!portal:test") == []

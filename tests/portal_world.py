"""A phone line with three contacts and a group, on a homeserver in memory, and the model of what
should come of it."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.builders import PERSON, invite, message
from tests.fake_homeserver import FakeHomeserver, Json
from tests.portal_model import (
    ANN,
    CONTACT_PER_DAY,
    DAY,
    EVE,
    GROUP,
    NUMBERS,
    PER_DAY,
    ROUTES,
    TAKEOVER,
    Talks,
    Waiting,
)
from tests.scripts import DONE
from tests.sms_kit import BOT, LINE, PHONE, identified
from tests.stage import Stage
from tests.waiting import Clock, eventually, settled

from letta_matrix.access.faults import ToolError
from letta_matrix.access.principal import Principal, Scope
from letta_matrix.runtimes.protocol import TextDelta, TurnEvent, TurnRequest

ADMIN = Principal("user:@root:test", "", frozenset(Scope))
GHOSTS = {number: f"@gmessages_1.{place}:test" for place, number in enumerate(NUMBERS, 2)}
WORDS = {"STOP": "stop", "Start.": "start", "hilfe": "help"}
NOON = 20_000 * DAY + 43_200


class PortalWorld:
    """Everything in it happens at `talks.now`. While `is_busy` the agents take their time."""

    def __init__(self, database: Path, empty: Path) -> None:
        shutil.copy(empty, database)
        self._database = database
        self.talks = Talks(NOON)
        self.rooms: dict[str, str] = {}
        self.old: list[str] = []
        self.said = 0
        self.is_busy = False
        self.counted = dict[str, int]()

    async def begin(self) -> None:
        self.clock = Clock.of(asyncio.get_running_loop())
        self.fake = FakeHomeserver()
        await self.fake.start()
        sms: Json = {
            "region": "US",
            "routes": ROUTES,
            "join_messages": 0,
            "groups": True,
            "takeover": TAKEOVER,
            "contact_per_day": CONTACT_PER_DAY,
            "per_day": PER_DAY,
            "quiet_hours": {"start": "22:00", "end": "06:00", "zone": "UTC"},
            "provisioning": {"url": "http://127.0.0.1:9", "secret": "sixteen-letters-or-more"},
        }
        self.stage = Stage(self.fake, self._database, sms=sms)
        await self.stage.open(bot_replies=0, person_per_minute=0, person_waiting=0, envelope="")
        self.stage.runtime.script = self._work
        await self.stage.add(1)
        await self.stage.add(2)
        for number, ghost in GHOSTS.items():
            self.fake.profiles[ghost] = identified(number)
        for talk in (*NUMBERS, GROUP):
            await self.make(talk)

    def _work(self, request: TurnRequest) -> Iterator[TurnEvent | float]:
        while self.is_busy:
            yield 0.01
        yield TextDelta("0", f"echo: {request.text}")
        yield DONE

    async def make(self, talk: str) -> None:
        """The bridge makes a room for a talk, perhaps again."""
        if talk in self.rooms:
            self.old.append(self.rooms[talk])
        room_id = self.rooms[talk] = f"!{talk[-3:]}.{len(self.old)}:test"
        people = GHOSTS.values() if talk == GROUP else [GHOSTS[talk]]
        self.fake.members[room_id] = {BOT, *people}
        self.tell_protocol(talk, "gmessages-sms")
        await self.stage.admit(invite(LINE, room_id, sender=BOT, **self._now()))
        portals, ours_in = self.stage.stores.portals, self.stage.stores.rooms.ours_in
        await eventually(
            lambda: portals.portal(room_id) and LINE in ours_in(room_id), what="the portal"
        )

    def tell_protocol(self, talk: str, protocol: str) -> Json:
        told: Json = {
            "bridgebot": BOT,
            "protocol": {"id": protocol},
            "channel": {"id": f"talk {talk[-3:]}", "receiver": "phone-1"},
            "com.beeper.room_type": "group_dm" if talk == GROUP else "dm",
        }
        return self.fake.set_state(self.rooms[talk], "m.bridge", told, "fi.mau.gmessages", BOT)

    def _now(self) -> Json:
        return {"origin_server_ts": int(self.talks.now * 1000)}

    def event(self, text: str, sender: str, room_id: str, **content: Any) -> Json:
        # Of what is sent at one moment nobody can say whether it is one question.
        self.talks.now += 1
        event = message(text, room_id, sender=sender, **self._now())
        event["content"] |= content
        return event

    def text(self) -> str:
        """Words that nobody has said before."""
        self.said += 1
        return f"w{self.said}"

    async def write(self, number: str, talk: str, text: str, *, addressed: bool = False) -> None:
        """A contact writes; what has to come of it does, and nothing else."""
        room_id, talks = self.rooms[talk], self.talks
        event = self.event(text, GHOSTS[number], room_id)
        agent_id, word = talks.agent_of(number), WORDS.get(text, "") if talk != GROUP else ""
        asks, answers = list[tuple[str, str]](), 0
        is_word = bool(word and agent_id and (word != "start" or talks.is_stopped(number)))
        if word and not agent_id:
            talks.refuse(number, word)
        if is_word:
            answers = talks.word(number, word)
            if word == "stop":
                talks.waiting = [one for one in talks.waiting if one.room_id != room_id]
        elif agent_id := talks.hears(number, talk, addressed=addressed):
            if talks.is_quiet:
                talks.waiting.append(Waiting(number, agent_id, room_id, text, talks.now))
            elif not talks.is_spent(number):
                talks.ask(number)
                asks, answers = [(agent_id, text)], 1
        await self.expect(lambda: self.stage.admit(event), asks, {room_id: answers})

    async def expect(
        self, act: Callable[[], Any], asks: list[tuple[str, str]], out: dict[str, int]
    ) -> None:
        """Something is done: just these agents are asked just that, in any order of talks, and so
        many messages go out to rooms."""
        asked, before = len(self.stage.runtime.asked), self.sent()
        await act()
        await self.quiesce()
        new = [(one.agent_id, one.text) for one in self.stage.runtime.asked[asked:]]
        assert sorted(new) == sorted(asks), (new, asks)
        after = self.sent()
        went = {
            room: n - before.get(room, 0) for room, n in after.items() if n > before.get(room, 0)
        }
        due = {room: n for room, n in out.items() if n}
        assert went == due, (went, due)

    def sent(self) -> dict[str, int]:
        """How many messages of ours each room on the network has."""
        rooms = [*self.rooms.values(), *self.old]
        return {
            room: sum(one["sender"].startswith(("@letta", "@agent")) for one in found)
            for room in rooms
            for found in [self.fake.messages(room)]
        }

    async def quiesce(self) -> None:
        """See everything to its end that does not wait for the morning."""
        queues, waiting = self.stage.dispatcher.queues, len(self.talks.waiting)
        await eventually(lambda: queues.waiting <= waiting, what=f"{waiting} waiting turns")
        await settled()

    async def pass_time(self, seconds: float) -> None:
        """Time goes by; what waited for the morning is asked then."""
        self.talks.now += seconds
        asked = len(self.stage.runtime.asked)
        self.clock.advance(seconds)
        waited, self.talks.waiting = self.talks.waiting, []
        if self.talks.is_quiet:
            self.talks.waiting = waited
        await self.quiesce()
        new = Counter((one.agent_id, one.text) for one in self.stage.runtime.asked[asked:])
        may = [one for one in waited if not self.talks.is_quiet and self._is_heard(one)]
        assert new <= Counter((one.agent_id, one.text) for one in may)
        # Who is first where not all have room is nobody's business.
        has_room = self.talks.has_room(one.number for one in may)
        assert not has_room or new.total() == len(may)
        for one in may:
            if new[one.agent_id, one.text]:
                assert not self.talks.is_spent(one.number)
                self.talks.ask(one.number, one.sent_at)

    def _is_heard(self, one: Waiting) -> bool:
        talk = next((name for name, room in self.rooms.items() if room == one.room_id), "")
        is_theirs = self.talks.agent_of(one.number) == one.agent_id
        return bool(talk) and is_theirs and not self.talks.is_left_alone(one.number, talk)

    async def answer_meanwhile(self, number: str, what: str) -> None:
        """A contact is being answered while something happens: only the answer to who is still to
        be answered goes out."""
        room_id, text = self.rooms[number], self.text()
        asked, self.is_busy = len(self.stage.runtime.asked), True
        event = self.event(text, GHOSTS[number], room_id)

        async def act() -> None:
            await self.stage.admit(event)
            await eventually(lambda: len(self.stage.runtime.asked) > asked, what="it is asked")
            await self._happens(number, what)
            self.is_busy = False

        agent_id = self.talks.agent_of(number)
        self.talks.ask(number)
        await self.expect(act, [(agent_id, text)], {room_id: int(what in ("", "stop"))})

    async def _happens(self, number: str, what: str) -> None:
        match what:
            case "stop":
                self.talks.word(number, "stop")
                await self.stage.admit(self.event("STOP", GHOSTS[number], self.rooms[number]))
                # An answer that is whole before it is taken goes out.
                decided = self.stage.parts.portals.decided
                await eventually(lambda: decided("sms", GHOSTS[number]).stopped, what="it is taken")
            case "block":
                await self.block(number, number)
            case "hold":
                await self.hold(number, number, held=True)
            case "typed":
                await self.stage.admit(self.event("by hand", PHONE, self.rooms[number]))
                self.talks.typed_until[number] = self.talks.now + TAKEOVER
            case "again":
                await self.make(number)
            case _:
                pass

    async def do(self, name: str, **arguments: str) -> bool:
        """An admin does something; whether that is taken."""
        try:
            await self.stage.parts.toolbox.do(ADMIN, name, arguments, door="chat")
        except ToolError:
            return False
        return True

    async def allow(self, number: str, written: str, agent_id: str) -> None:
        assert await self.do("portals.allow", contact=written, agent_id=agent_id)
        self.talks.decided[number] = agent_id

    async def block(self, number: str, written: str) -> None:
        assert await self.do("portals.block", contact=written)
        self.talks.decided[number] = ""

    async def hold(self, number: str, written: str, *, held: bool) -> None:
        """Silence agents in the talks with a contact, or let them speak."""
        talks = self.talks.talks_with(number)
        done = await self.do("portals.hold" if held else "portals.release", contact=written)
        assert done is bool(talks)
        for talk in talks:
            (self.talks.held.add if held else self.talks.held.discard)(talk)
            if not held:
                self.talks.typed_until.pop(talk, None)

    async def send(self, agent_id: str, number: str, written: str) -> None:
        """An agent begins a talk, if it may."""
        talks = self.talks
        is_theirs = talks.agent_of(number) == agent_id
        may = is_theirs and not talks.is_left_alone(number, number) and not talks.is_quiet
        may = may and not talks.is_spent(number)
        program = Principal("token:1", agent_id, frozenset({Scope.WRITE}))
        arguments = {"number": written, "text": self.text()}

        async def act() -> None:
            call = self.stage.parts.toolbox.call(program, "sms_send", arguments, door="mcp")
            (done,) = await asyncio.gather(call, return_exceptions=True)
            assert may is not isinstance(done, ToolError), done

        await self.expect(act, [], {self.rooms[number]: int(may)})
        if may:
            talks.ask(number)

    async def by_hand(self, talk: str, sender: str) -> None:
        """A person writes, on the phone itself or in a client."""
        event = self.event(self.text(), sender, self.rooms[talk])
        await self.expect(lambda: self.stage.admit(event), [], {})
        self.talks.typed_until[talk] = self.talks.now + TAKEOVER

    async def switch(self, talk: str) -> None:
        """The talk goes on by other means, and is the same."""
        event = self.tell_protocol(talk, "gmessages-rcs" if self.said % 2 else "gmessages-sms")
        await self.expect(lambda: self.stage.admit(event), [], {})

    async def say_for_nobody(self, number: str, kind: str) -> None:
        """Something is said that no agent hears."""
        room_id, ghost = self.rooms[number], GHOSTS[number]
        match kind:
            case "notice":
                event = self.event(self.text(), ghost, room_id, msgtype="m.notice")
            case "bot":
                event = self.event(self.text(), BOT, room_id)
            case _:
                event = self.event(self.text(), ghost, (self.old or ["!other:test"])[-1])
        await self.expect(lambda: self.stage.admit(event), [], {})

    async def share(self, *, shared: bool) -> None:
        """The bridge gives Eve's ghost Ann's number, or its own back."""
        self.talks.shared = shared
        number = ANN if shared else EVE
        self.fake.profiles[GHOSTS[EVE]] = identified(number)
        await self.stage.stores.portals.claim("sms", GHOSTS[EVE], [number])

    async def restart(self) -> None:
        await self.stage.recover()
        # Who is in a talk of two is remembered, who is in a group looked up after a start.
        await self.stage.parts.surroundings.look(self.rooms[GROUP])

    async def end(self) -> None:
        await self.stage.close()
        await self.fake.stop()


__all__ = ["PERSON", "PHONE", "PortalWorld"]

"""People come and go, write, edit, remove, react, invite, mention and reply in any order, in rooms
with two agents, with restarts in between: no message is lost, none is asked twice, none after it
was removed, each as it was last corrected; and who is addressed and cannot answer says so.
"""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.builders import edit, invite, message, reaction, redaction, reply_to, said_in
from tests.room_model import GHOSTS, GROUP, OWN, Said
from tests.room_world import RoomWorld

PEOPLE = st.sampled_from(["@ann:test", "@bob:test"])
ROOMS = st.sampled_from([OWN, GROUP, GROUP])
ANY = st.integers(0, 30)
WHOM = st.sampled_from(["", "", *GHOSTS.values(), "@bob:test", *GHOSTS.values()])
WHERE = st.sampled_from(["", "", "reply", "thread"])


class Rooms(RuleBasedStateMachine):
    """What people do, in a `RoomWorld`."""

    empty: Path

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = TemporaryDirectory()
        self.world = RoomWorld(Path(self.directory.name) / "test.db", self.empty)

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.do(self.world.begin())

    @rule(room_id=ROOMS, sender=PEOPLE, whom=WHOM, where=WHERE, number=ANY)
    def write(self, room_id: str, sender: str, whom: str, where: str, number: int) -> None:
        if sender not in self.world.house.people[room_id]:
            return
        at = self.world.now()
        text, fields = f"w{self.world.counts}w", {"sender": sender, "origin_server_ts": at}
        target = self.world.pick(number, room_id, plain=where == "thread") if where else None
        if target is None:
            event = message(text, room_id, **fields)
        elif where == "reply":
            event = reply_to(target.event_id, text, room_id, **fields)
        else:
            event = said_in(target.event_id, text, room_id, **fields)
        if whom:
            event["content"]["m.mentions"] = {"user_ids": [whom]}
        said = Said(event, [text], {whom} - {""})
        if where == "reply":
            said.replies_to = target
        elif target is not None:
            said.thread_root, said.thread = target, target.event_id
        self.world.said.append(said)
        self.do(self.world.happen(event, said))

    @precondition(lambda self: self.world.said)
    @rule(number=ANY, forged=st.booleans(), whom=st.sampled_from(["", "", *GHOSTS.values()]))
    def edit(self, number: int, forged: bool, whom: str) -> None:
        said = self.world.said[number % len(self.world.said)]
        at = self.world.now()
        text = f"w{self.world.counts}w"
        new = {"m.mentions": {"user_ids": [whom]}} if whom else {}
        sender = _other(said.sender) if forged else said.sender
        event = edit(said.event_id, text, said.room_id, sender=sender, origin_server_ts=at, new=new)
        if not forged and not said.removed:
            said.texts.append(text)
            said.edits.append(event["event_id"])
            if not said.arrived:
                said.mentions = {whom} - {""}
        self.do(self.world.happen(event, said if not forged else None))

    @precondition(lambda self: any(said.edits for said in self.world.said))
    @rule(number=ANY)
    def edit_an_edit(self, number: int) -> None:
        """It is nothing (spec: Event replacements)."""
        edited = [said for said in self.world.said if said.edits]
        said = edited[number % len(edited)]
        fields = {"sender": said.sender, "origin_server_ts": self.world.now()}
        self.do(self.world.happen(edit(said.edits[-1], "nothing", said.room_id, **fields), None))

    @precondition(lambda self: self.world.said)
    @rule(number=ANY, forged=st.booleans(), again=st.booleans())
    def redact(self, number: int, forged: bool, again: bool) -> None:
        """`again`: its redaction is redacted, too, which brings nothing back."""
        said = self.world.said[number % len(self.world.said)]
        sender = _other(said.sender) if forged else said.sender
        fields = {"sender": sender, "origin_server_ts": self.world.now()}
        event = redaction(said.event_id, said.room_id, **fields)
        self.do(self.world.redact(event, None if forged else said))
        if again:
            fields["origin_server_ts"] = self.world.now()
            more = redaction(event["event_id"], said.room_id, **fields)
            self.do(self.world.happen(more, None))

    @precondition(lambda self: self.world.said)
    @rule(number=ANY, sender=PEOPLE, key=st.sampled_from(["👍", "✅", "❌"]))
    def react(self, number: int, sender: str, key: str) -> None:
        """Nothing, as no question stands open."""
        said = self.world.said[number % len(self.world.said)]
        event = reaction(said.event_id, key, said.room_id, sender=sender)
        self.do(self.world.happen(event, None))

    @rule(agent_id=st.sampled_from(sorted(GHOSTS)), sender=PEOPLE)
    def invite(self, agent_id: str, sender: str) -> None:
        # Of two that come at once nobody can say who is first.
        if agent_id in self.world.house.inside or self.world.coming or self.world.queue is not None:
            return
        event = invite(GHOSTS[agent_id], GROUP, sender=sender, origin_server_ts=self.world.now())
        self.world.coming[agent_id] = float(event["origin_server_ts"])
        self.do(self.world.invite(event))

    @rule()
    def hold_joins(self) -> None:
        """Whoever is invited from now on takes a while to come."""
        self.world.joins.clear()

    @rule()
    def let_join(self) -> None:
        self.world.joins.set()
        self.do(self.world.come())

    @precondition(lambda self: self.world.house.inside and not self.world.coming)
    @rule(number=ANY, sender=PEOPLE)
    def send_away(self, number: int, sender: str) -> None:
        agent_id = sorted(self.world.house.inside)[number % len(self.world.house.inside)]
        event = invite(GHOSTS[agent_id], GROUP, sender=sender, origin_server_ts=self.world.now())
        event["content"] = {"membership": "leave"}
        self.do(self.world.send_away(agent_id, event))

    @rule(come=st.booleans())
    def come_or_go(self, come: bool) -> None:
        """Bob, into the group or out of it."""
        if come is ("@bob:test" in self.world.house.people[GROUP]) or self.world.queue is not None:
            return
        event = invite("@bob:test", GROUP, sender="@bob:test", origin_server_ts=self.world.now())
        event["content"] = {"membership": "join" if come else "leave"}
        for people in (self.world.house.people[GROUP], self.world.fake.members[GROUP]):
            (people.add if come else people.discard)("@bob:test")
        self.do(self.world.happen(event, None))

    @rule()
    def finish(self) -> None:
        """The agents get done with all that is asked of them."""
        self.do(self.world.finish())

    @rule()
    def restart(self) -> None:
        self.do(self.world.restart())

    @rule()
    def be_away(self) -> None:
        """From now on the homeserver keeps what happens, and pushes it at once later."""
        if self.world.queue is None and not self.world.coming:
            self.world.queue = []

    @precondition(lambda self: self.world.queue is not None)
    @rule()
    def be_back(self) -> None:
        self.do(self.world.flush())

    @precondition(lambda self: self.world.said)
    @rule(number=ANY)
    def push_again(self, number: int) -> None:
        said = self.world.said[number % len(self.world.said)]
        if said.arrived and not said.removed and self.world.queue is None:
            self.do(self.world.push([said.event]))

    def teardown(self) -> None:
        try:
            if hasattr(self.world, "stage"):
                self.do(self.world.end())
        finally:
            self.runner.close()
            self.directory.cleanup()


def _other(sender: str) -> str:
    return "@bob:test" if sender == "@ann:test" else "@ann:test"


@pytest.mark.usefixtures("migrated")
def test_whatever_people_do(migrated: Path) -> None:
    class Machine(Rooms):
        empty = migrated

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=10,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )

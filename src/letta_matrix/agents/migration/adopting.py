"""Carries a plan out. Each step is one that may be taken twice, and the row comes last: whatever
ends an import, the next one goes on where it was."""

import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from mautrix.errors import MatrixRequestError

from letta_matrix.agents.decoration import NotAsWanted
from letta_matrix.agents.migration.notes import POWERLESS, Note
from letta_matrix.agents.migration.old_users import OldUsers
from letta_matrix.agents.migration.plan import Adoption, Plan, Rules, Step
from letta_matrix.agents.server_help import ServerHelp, random_password
from letta_matrix.common.identifiers import room_alias
from letta_matrix.common.json_fields import Json, mapping
from letta_matrix.common.parts import part
from letta_matrix.common.side_by_side import side_by_side
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.errors import refused_request
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.power_levels import level_of
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.store.agents import (
    ANSWERED_UNTIL,
    LOGINS_ENDED,
    ROOM_BEFORE,
    Agent,
    AgentDirectory,
    in_room,
    marked,
)

T = TypeVar("T")
_ALL_POWER = 100
_GOODBYE = "goodbye"
"""Key in the marker of what an old user says last."""
_LAST = 10
"""Events that are looked at for the last answer."""
_AGAIN = "import again: it goes on where it was"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an agent, or of the bot where there is none: `notes` tell what was not done.
    `is_whole` where nothing is to be done again."""

    adoption: Adoption | None
    notes: tuple[Note, ...] = ()
    is_whole: bool = True


class _Failed(Exception):
    """A step without which there is nothing to take over."""


@part
class Adopting:
    """Works by impersonation, and with what help the configuration's credentials give."""

    _homeserver: Homeserver
    _users: OldUsers
    _help: ServerHelp
    _directory: AgentDirectory
    _rules: Rules

    _away: str = ""
    """Why the homeserver does not answer: nobody waits for it once more."""

    async def carry_out(self, plan: Plan) -> list[Outcome]:
        """Take all steps; raises StoreUnavailable. A homeserver that is away ends it: what was not
        done is told."""
        self._away = ""
        outcomes = list(await side_by_side(self._adopt, plan.to_do))
        if plan.bot_sessions:
            outcomes.append(await self._free_bot())
        return outcomes

    async def _adopt(self, one: Adoption) -> Outcome:
        notes: list[Note] = []
        try:
            if self._away:
                raise HomeserverUnavailable(self._away)
            await self._take(one, notes)
        except HomeserverUnavailable as error:
            self._away = str(error)
            return Outcome(one, (*notes, Note(f"not done: {error}", _AGAIN)), is_whole=False)
        except _Failed as error:
            return Outcome(one, (*notes, Note(str(error), _AGAIN)), is_whole=False)
        return Outcome(one, tuple(notes))

    async def _take(self, one: Adoption, notes: list[Note]) -> None:
        ghost, marks = self._homeserver.acting_as(one.user_id), dict[str, object]()
        if Step.ACCOUNT in one.steps and await _essential(ghost.register()):
            marks[LOGINS_ENDED] = True
        if one.room_id:
            await self._enter(one, ghost, notes)
            if Step.ALIAS in one.steps:
                alias = room_alias(one.agent_id, self._rules.domain)
                await self._tried(notes, "its alias", ghost.point_alias(alias, one.room_id))
            if Step.ROW in one.steps:
                marks[ANSWERED_UNTIL] = await self._answered_until(one, ghost)
            if one.old is not None:
                goodbye = self._say_goodbye(one, one.old.user_id)
                await self._tried(notes, "its old user stays", goodbye)
        ends = Step.LOGINS in one.steps and await self._tried(
            notes, "its logins stay", self._end_logins(ghost)
        )
        if ends and self._help.admin is not None:
            marks |= {LOGINS_ENDED: True, "password": None}
        await self._store(one, {**marks, "sole": False if one.sessions and not ends else None})

    async def _enter(self, one: Adoption, ghost: Intent, notes: list[Note]) -> None:
        joins, empowers = Step.JOIN in one.steps, Step.POWER in one.steps
        if not (joins or empowers):
            return
        if not one.helper:
            try:
                await self._help.empower(ghost, one.room_id)
            except NotAsWanted as error:
                if joins:
                    raise _Failed(str(error)) from None
                notes.append(Note(str(error), POWERLESS.remedy))
            return
        helper = await _essential(self._users.acting_as(one.helper))
        if empowers:
            await self._tried(notes, POWERLESS.what, _empower(helper, ghost, one.room_id))
        if joins:
            await _essential(helper.invite(one.room_id, ghost.user_id))
            await _essential(ghost.join(one.room_id))

    async def _answered_until(self, one: Adoption, ghost: Intent) -> float | None:
        """When anybody last wrote in a room for the agent; None where nobody has."""
        senders = [ghost.user_id, self._rules.bot, *([one.before] if one.before else ())]
        wanted = {"senders": senders, "types": ["m.room.message"]}
        eyes = await self._users.acting_as(one.helper) if one.helper else ghost
        try:
            page = await eyes.messages(one.room_id, limit=_LAST, filters=wanted)
        except MatrixRequestError as error:
            raise _Failed(refused_request(error)) from None
        events = [Event(event) for event in page.events]
        # Of an import that was cut off behind it: that answers nobody.
        said = [one for one in events if _GOODBYE not in mapping(one.content.get(MARKER))]
        return max((one.sent_at for one in said), default=None)

    async def _say_goodbye(self, one: Adoption, who: str) -> None:
        old = await self._users.acting_as(who)
        text = f"From here on {one.name} answers as {one.user_id}. I take my leave."
        transaction = txn_id(one.agent_id, "goodbye", one.room_id)
        marker = {MARKER: {_GOODBYE: one.agent_id, "txn": transaction}}
        content: Json = {"msgtype": "m.notice", "body": text, "m.mentions": {}, **marker}
        await old.send(one.room_id, "m.room.message", content, transaction, give_up_after=60)
        await old.leave(one.room_id)

    async def _end_logins(self, user: Intent) -> None:
        if self._help.admin is not None:
            await self._help.admin.set_password(user.user_id, random_password(), sign_out=True)
        else:
            await user.end_sessions()

    async def _free_bot(self) -> Outcome:
        notes: list[Note] = []
        bot = self._homeserver.acting_as(self._rules.bot)
        try:
            await self._tried(notes, "the logins of the bot's account stay", self._end_logins(bot))
        except HomeserverUnavailable as error:
            notes.append(Note(f"the logins of the bot's account stay: {error}", _AGAIN))
        return Outcome(None, tuple(notes), is_whole=not notes)

    async def _tried(self, notes: list[Note], what: str, action: Awaitable[object]) -> bool:
        """Whether it was done; what is refused is told, and holds up nothing."""
        try:
            await action
        except MatrixRequestError as error:
            notes.append(Note(f"{what}: {refused_request(error)}", _AGAIN))
            return False
        return True

    async def _store(self, one: Adoption, marks: dict[str, object]) -> None:
        now = {"registered": True, **marks}
        if one.row is not None:
            await self._directory.change(
                [one.agent_id], lambda row: marked(_moved(row, one), **now)
            )
        elif Step.ROW in one.steps:
            info = one.living.info
            row = Agent(
                one.agent_id,
                one.living.runtime,
                clean_text(info.name),
                one.user_id,
                clean_text(info.description),
                one.room_id or None,
                created_at=time.time(),
            )
            await self._directory.reserve([marked(row, **now)])


def _moved(row: Agent, one: Adoption) -> Agent:
    """A row that is there, with the room that the agent has from now on."""
    if not one.room_id or row.room_id == one.room_id:
        return row
    before = row.room_id or row.applied.get(ROOM_BEFORE)
    moved = in_room(row, one.room_id)
    return marked(moved, **{ROOM_BEFORE: before}) if before else moved


async def _empower(helper: Intent, ghost: Intent, room_id: str) -> None:
    """Give as much power as the helper has."""
    levels = await helper.state(room_id, "m.room.power_levels")
    users = mapping(levels.get("users"))
    # Creators of rooms since version 12 stand above all levels, and in no list.
    own = level_of(levels, helper.user_id) if helper.user_id in users else _ALL_POWER
    content = {**levels, "users": {**users, ghost.user_id: own}}
    await helper.set_state(room_id, "m.room.power_levels", content)


async def _essential(action: Awaitable[T]) -> T:
    try:
        return await action
    except MatrixRequestError as error:
        raise _Failed(refused_request(error)) from None

"""What makes our users and rooms easy to recognise and to find. Agents talk without it.

A homeserver may forbid names or pictures, its media may be off or away, people may have taken
an agent's power in its room. None of that holds up what does matter: user, room, membership.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common import clock
from letta_matrix.common.json_fields import mapping
from letta_matrix.matrix.errors import is_refusal, refused_request
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.store.agents import WANTING, Agent, AgentDirectory, AgentStatus, marked
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.meta import Meta

log = structlog.get_logger()

RARELY, SOON = 6 * 3600.0, 300.0
"""Seconds until what was refused is tried again, and what got no answer; that from then on ever
more rarely."""

_PATIENCE = 75.0
"""Seconds that a step may take: longer than a request is tried, which then tells why it failed."""


_WORDS = {
    "displayname": "display names",
    "avatar": "pictures",
    "space": "places in the space",
    "alias": "room aliases",
    "room_name": "room names",
    "room_topic": "room topics",
    "room_avatar": "room pictures",
    "service": "that rooms are chats with one agent",
    "access": "who may invite and read in rooms",
    "members": "invitations of agents.room_members",
    "password": "passwords",
    "power": "power in rooms",
    "sole": "earlier accounts",
}
BOTS_ACCOUNT = "the bot's account"

_STRANGERS = ("sole", BOTS_ACCOUNT)
"""Steps that end when nobody else is signed in to our accounts: agents do without, operators are
not to."""

_EVERYWHERE = ("displayname", "avatar")
"""Steps that take the same of the homeserver for every agent."""

T = TypeVar("T")
Action = Callable[[], Awaitable[object]]


class NotAsWanted(Exception):
    """Something is not as it is wanted, for a reason that an operator understands."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """Why something is wanting, since when and until when (Unix times) it is left so, whether
    that was the homeserver's answer, and what was wanted."""

    reason: str = ""
    at: float = 0.0
    until: float = 0.0
    answered: bool = True
    value: object = ""


@dataclass(frozen=True, slots=True)
class _Silence:
    """A step that gets no answer: until when (loop's clock) nobody tries it, after which pause."""

    reason: str
    until: float
    pause: float


class Decoration:
    """Tries what agents can do without, warns once of what is refused, and remembers it.

    For an agent that stands in its `applied`, for the bridge itself in `meta`: a restart tries
    nothing again before its time.
    """

    def __init__(self, directory: AgentDirectory, meta: Meta) -> None:
        self._directory = directory
        self._meta = meta
        self._own: dict[str, _Fault] = {}
        self._is_loaded = False
        self._silent: dict[str, _Silence] = {}
        self._unanswered: set[str] = set()
        self._told: set[tuple[str, str]] = set()
        self._anew = 0.0

    @property
    def troubles(self) -> list[str]:
        """What is wanting, in lines for operators, without `strangers`."""
        return self._lines(lambda step: step not in _STRANGERS)

    @property
    def strangers(self) -> list[str]:
        """Which of our accounts others are signed in to, in lines for operators."""
        return self._lines(lambda step: step in _STRANGERS)

    def _lines(self, tells: Callable[[str], bool]) -> list[str]:
        counts = Counter(
            (step, fault.reason)
            for agent in self._directory.all()
            if agent.status is AgentStatus.ACTIVE
            for step, fault in _wanting(agent).items()
            if tells(step)
        )
        own = [(what, fault.reason) for what, fault in self._own.items() if tells(what)]
        agents = [(_what(step, count), reason) for (step, reason), count in counts.items()]
        return [f"{what}: {reason}" for what, reason in own + agents]

    @property
    def is_own_due(self) -> bool:
        """Whether it is time to try again what is wanting of the bridge itself."""
        return any(not self._rests(fault) for fault in self._own.values())

    def is_due(self, agent: Agent) -> bool:
        """Whether it is time to try again what is wanting of an agent."""
        faults = _wanting(agent).values() if agent.status is AgentStatus.ACTIVE else ()
        return any(not self._rests(fault) for fault in faults)

    def anew(self) -> None:
        """The homeserver has restarted, perhaps with other settings: it is time for everything."""
        self._anew = time.time()
        self._silent.clear()

    def _rests(self, fault: _Fault) -> bool:
        """Whether what failed is left alone, as its time is still to come. One that no fault sets,
        as after a jump of the clock, has come."""
        return fault.at > self._anew and 0 < fault.until - time.time() < 2 * RARELY

    def _is_refused(self, before: _Fault | None, value: object) -> bool:
        """Whether the same was wanted lately, and failed."""
        return before is not None and before.value == value and self._rests(before)

    async def put_on(self, agent_id: str, step: str, value: object, action: Action) -> None:
        """Let a step of an agent's set-up be `value`, by an `action` that may return what is to
        be remembered instead. Raises StoreUnavailable and nothing of the homeserver's."""
        agent = self._directory.get(agent_id)
        if agent is None:
            return
        before = _wanting(agent).get(step)
        if agent.applied.get(step) == value:
            if before is not None:
                await self._remember(agent_id, step, None, {})
            return
        if self._is_refused(before, value):
            return
        done, fault = await self._try(step, action)
        if fault is None:
            await self._remember(agent_id, step, None, {step: value if done is None else done})
        else:
            await self._remember(agent_id, step, replace(fault, value=value), {})

    async def _remember(
        self, agent_id: str, step: str, fault: _Fault | None, applied: Mapping[str, object]
    ) -> None:
        def edited(one: Agent) -> Agent:
            wanting = {**_wanting(one), step: fault}
            kept = {key: asdict(what) for key, what in wanting.items() if what is not None}
            return marked(one, **applied, **{WANTING: kept or None})

        await self._directory.change([agent_id], edited)

    async def attempt(
        self, what: str, action: Callable[[], Awaitable[T]], value: str = ""
    ) -> T | None:
        """Do something that the bridge itself can do without, unless it was refused lately, with
        the same `value` wanted; None if it is not done. Raises StoreUnavailable, and
        HomeserverUnavailable the first time that it gets no answer: it may be that nothing does.
        """
        before = (await self._all_own()).get(what)
        if self._is_refused(before, value):
            return None
        done, fault = await self._try(what, action)
        if fault is not None and not fault.answered and what not in self._unanswered:
            self._unanswered.add(what)
            raise HomeserverUnavailable(fault.reason)
        if fault is not None:
            fault = self._own[what] = replace(fault, value=value)
        else:
            self._unanswered.discard(what)
            self._own.pop(what, None)
        if fault != before:
            own = {name: asdict(one) for name, one in self._own.items()}
            await self._meta.set(WANTING, json.dumps(own))
        return done

    async def _all_own(self) -> dict[str, _Fault]:
        if not self._is_loaded:
            known = mapping(json.loads(await self._meta.get(WANTING) or "{}"))
            self._own |= {what: _kept(fault) for what, fault in known.items()}
            self._is_loaded = True
        return self._own

    async def _try(
        self, step: str, action: Callable[[], Awaitable[T]]
    ) -> tuple[T | None, _Fault | None]:
        silence = self._silent.get(step)
        if silence is not None and silence.until > clock.now():
            # One has waited for it in vain, which is enough.
            return None, _fault(silence.reason, silence.pause, answered=False)
        try:
            async with asyncio.timeout(_PATIENCE):
                done = await action()
        except NotAsWanted as error:
            # It ends at the homeserver, as operators are told: they look soon after.
            pause = SOON if step in _STRANGERS else RARELY
            return None, self._told_fault(step, str(error), pause)
        except MatrixRequestError as error:
            reason, is_final = refused_request(error), is_refusal(error)
        except HomeserverUnavailable as error:
            reason, is_final = str(error), False
        except TimeoutError:
            reason, is_final = f"no answer in {_PATIENCE:g} s", False
        except StoreUnavailable:
            raise
        except Exception as error:
            log.error("decorating failed", what=step, exc_info=error)
            reason, is_final = f"{type(error).__name__}: {error}", True
        else:
            self._silent.pop(step, None)
            return done, None
        reason += "; agents talk all the same"
        if is_final:
            return None, self._told_fault(step, reason)
        if step not in _EVERYWHERE:
            return None, self._told_fault(step, reason, SOON, answered=False)
        pause = SOON if silence is None else min(silence.pause * 2, RARELY)
        self._silent[step] = _Silence(reason, clock.now() + pause, pause)
        return None, self._told_fault(step, reason, pause, answered=False)

    def _told_fault(
        self, step: str, reason: str, pause: float = RARELY, *, answered: bool = True
    ) -> _Fault:
        if (step, reason) not in self._told:
            self._told.add((step, reason))
            log.warning("not as it should be", what=_WORDS.get(step, step), reason=reason)
        return _fault(reason, pause, answered=answered)


def _wanting(agent: Agent) -> dict[str, _Fault]:
    """What is wanting of an agent, by step."""
    wanting = mapping(agent.applied.get(WANTING))
    return {step: _kept(fault) for step, fault in wanting.items()}


def _kept(fault: object) -> _Fault:
    """A fault as it was stored, by whichever version."""
    told = mapping(fault)
    return _Fault(**{name: told[name] for name in _Fault.__slots__ if name in told})


def _fault(reason: str, pause: float, *, answered: bool) -> _Fault:
    now = time.time()
    return _Fault(reason, now, now + pause, answered)


def _what(step: str, count: int) -> str:
    return f"{_WORDS.get(step, step)} of {count} agent{'s' if count > 1 else ''}"

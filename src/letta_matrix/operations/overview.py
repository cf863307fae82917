"""How all stands at once: what the dashboard shows."""

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.principal import Principal, Scope
from letta_matrix.common.parts import part
from letta_matrix.conversations.approvals import Approvals
from letta_matrix.operations.agent_lists import is_shown
from letta_matrix.operations.approvals import approval_told
from letta_matrix.operations.operation import operation
from letta_matrix.operations.toolbox.tool import Caller, Params, Result
from letta_matrix.operations.turn_lists import notices_in
from letta_matrix.operations.types import Agent as AgentTold
from letta_matrix.operations.types import Approval as ApprovalTold
from letta_matrix.operations.types import FailedTurn, told
from letta_matrix.operations.types import Turn as TurnTold
from letta_matrix.runtimes.protocol import AgentRuntime
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.turn_history import Ended, TurnHistory
from letta_matrix.store.turns import Outcome, Turn, TurnStatus

_SPANS = 60

_DAY = 86_400

Seconds = Annotated[float | None, Field(description="half took no longer; null: not known")]


class LookBack(Params):
    seconds: int = Field(3_600, ge=60, le=30 * _DAY, description="how far to look back")


class AgentStanding(AgentTold):
    trouble: Annotated[str, Field(description='what is wrong with it, "" for nothing')]
    running: Annotated[int, Field(description="turns that it is at")]
    waiting: Annotated[int, Field(description="turns that wait for it")]
    last_turn: TurnTold | None


class RuntimeTold(TypedDict):
    name: str
    creates: Annotated[bool, Field(description="agents can be made and renamed there")]


class Overview(TypedDict):
    agents: list[AgentStanding]
    runtimes: list[RuntimeTold]
    turns: Annotated[list[TurnTold], Field(description="of agents, the newest first")]
    failures: Annotated[
        list[FailedTurn], Field(description="of the last 1,000 turns, the newest first")
    ]
    approvals: Annotated[list[ApprovalTold], Field(description="that wait for an answer")]


class Span(TypedDict):
    since: float
    answered: int
    failed: int
    first_words: Seconds
    whole: Seconds


class Pace(TypedDict):
    """How many messages were answered, and how long that took, in seconds."""

    seconds: int
    since: Annotated[
        float,
        Field(
            description="from when on they are counted (Unix time): later than was asked for where "
            "there were more than 10,000 turns"
        ),
    ]
    answered: int
    failed: int
    first_words: Seconds
    whole: Seconds
    spans: Annotated[list[Span], Field(description="the same by equal spans, the oldest first")]


@part
class Overviews:
    """Tells how agents, turns and approvals stand. `unfinished` are the turns that run or wait."""

    _directory: AgentDirectory
    _runtimes: Mapping[str, AgentRuntime]
    _history: TurnHistory
    _approvals: Approvals
    _unfinished: Callable[[], list[Turn]]
    _trouble_of: Callable[[str], str]

    @operation("overview.get", Scope.ADMIN, Overview, rest="GET /overview")
    async def get_overview(self, caller: Caller, _: Params) -> Result:
        """Show how all stands: every agent with its last turn, the newest turns, the newest
        failures, and the approvals that wait."""
        holder = caller.principal
        approvals = await self._approvals.store.pending("")
        lately = await self._history.lately([one.agent_id for one in self._directory.all()])
        return {
            "agents": self._agents(holder, lately.last),
            "runtimes": [
                {"name": name, "creates": runtime.capabilities.manage}
                for name, runtime in self._runtimes.items()
            ],
            "turns": [told(TurnTold, one) for one in _of(holder, lately.newest)],
            "failures": [
                told(FailedTurn, one, notices=notices_in(lately.owed[one.turn_id]))
                for one in _of(holder, lately.failed)
            ],
            "approvals": [
                approval_told(one) for one in approvals if holder.may_act_in(one.room_id)
            ],
        }

    @operation("overview.pace", Scope.ADMIN, Pace, rest="GET /overview/pace")
    async def get_pace(self, _: Caller, params: LookBack) -> Result:
        """Show how many messages agents have answered lately, and how long that took: until the
        first words, and in all."""
        since = time.time() - params.seconds
        length = params.seconds / _SPANS
        ended, counted_since = await self._history.ended_since(since)
        by_span = {
            number: list(found)
            for number, found in itertools.groupby(
                sorted(ended, key=lambda one: one.finished_at),
                lambda one: min(int((one.finished_at - since) / length), _SPANS - 1),
            )
        }
        spans = [
            {"since": since + number * length, **_figures(by_span.get(number, []))}
            for number in range(_SPANS)
        ]
        return {
            "seconds": params.seconds,
            "since": counted_since,
            **_figures(ended),
            "spans": spans,
        }

    def _agents(self, holder: Principal, last: Mapping[str, Turn]) -> list[AgentStanding]:
        unfinished = self._unfinished()
        waiting = Counter(t.agent_id for t in unfinished if t.status is TurnStatus.QUEUED)
        running = Counter(t.agent_id for t in unfinished if t.status is not TurnStatus.QUEUED)

        def standing(agent: Agent) -> AgentStanding:
            turn = last.get(agent.agent_id)
            return told(
                AgentStanding,
                agent,
                trouble=self._trouble_of(agent.agent_id),
                running=running[agent.agent_id],
                waiting=waiting[agent.agent_id],
                last_turn=told(TurnTold, turn) if _of(holder, [turn] if turn else []) else None,
            )

        return [standing(one) for one in self._directory.all() if is_shown(one, holder)]


def _of(holder: Principal, turns: Sequence[Turn]) -> list[Turn]:
    return [one for one in turns if holder.may_act_in(one.room_id)]


def _figures(ended: Sequence[Ended]) -> dict[str, object]:
    answered = [one for one in ended if one.outcome == Outcome.ANSWERED]
    failed = sum(one.outcome == Outcome.FAILED for one in ended)
    # What came all at once had its first words at its end.
    words = [(one.arrived_at, one.spoke_at or one.finished_at) for one in answered]
    whole = [(one.arrived_at, one.finished_at) for one in answered]
    return {
        "answered": len(answered),
        "failed": failed,
        "first_words": _median(words),
        "whole": _median(whole),
    }


def _median(pairs: Sequence[tuple[float | None, float]]) -> float | None:
    took = [max(end - begin, 0.0) for begin, end in pairs if begin is not None]
    return round(statistics.median(took), 3) if took else None

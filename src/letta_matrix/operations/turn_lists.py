"""What agents are at, and what they were."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import structlog
from mautrix.errors import MatrixRequestError
from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.json_fields import mapping
from letta_matrix.common.parts import part
from letta_matrix.conversations.approvals import Approvals
from letta_matrix.matrix.content import CURSOR
from letta_matrix.matrix.events import newest_content
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.operations.operation import operation
from letta_matrix.operations.pages import After, Limit, page_of
from letta_matrix.operations.toolbox.results import cut
from letta_matrix.operations.toolbox.tool import Caller, Params, Result
from letta_matrix.operations.turns import OneTurn
from letta_matrix.operations.types import Turn as TurnTold
from letta_matrix.operations.types import TurnDetails, told
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.turns import Turn, TurnStatus, TurnStore

log = structlog.get_logger()

_LONGEST_TEXT = 10_000
_LONGEST_NOTICE = 2_000

_PATIENCE = 5.0
"""Seconds that the homeserver has to tell what a reply says by now."""


class ListedTurns(Params):
    status: Literal["unfinished", "all"] = Field(
        "unfinished",
        description="those that run or wait, oldest first; or also older ones, newest first",
    )
    limit: Limit = 50
    after: After = None


class TurnPage(TypedDict):
    turns: list[TurnTold]
    next: Annotated[str | None, Field(description="`after` of the next page")]


@part
class TurnLists:
    """Tells of turns."""

    _homeserver: Homeserver
    _directory: AgentDirectory
    _turns: TurnStore
    _outbox: Outbox
    _approvals: Approvals

    @operation("turns.list", Scope.ADMIN, TurnPage, rest="GET /turns")
    async def list_turns(self, caller: Caller, params: ListedTurns) -> Result:
        """List the turns that run or wait, or the newest of all."""
        if params.status == "all":
            turns = await self._turns.newest(params.limit + 1, before=params.after)
        else:
            turns = await self._waiting(params)
        shown, more = page_of(turns, params.limit, lambda turn: turn.turn_id)
        seen = [turn for turn in shown if caller.principal.may_act_in(turn.room_id)]
        return {"turns": [told(TurnTold, one) for one in seen], "next": more}

    @operation("turns.get", None, TurnDetails, rest="GET /turns/{turn_id}")
    async def get_turn(self, caller: Caller, params: OneTurn) -> TurnDetails:
        """Show a turn, also one that is over, and what its agent has said.

        Without the scope `admin` a token sees those that answer what it has said itself.
        """
        turn = await self._turns.get(params.turn_id)
        if turn is None or not _may_see(caller, turn):
            raise ToolError(f"There is no turn {params.turn_id!r}.", Fault.NOT_FOUND)
        asked = await self._approvals.store.of_turn(turn.turn_id)
        owed = await self._outbox.of_turn(turn.turn_id)
        return told(
            TurnDetails,
            turn,
            text=cut(await self._text(turn, owed), _LONGEST_TEXT),
            notices=notices_in(owed),
            waiting_for_approval=[one.key for one in asked if one.is_open],
        )

    async def _waiting(self, params: ListedTurns) -> list[Turn]:
        """A page and one more of those that run or wait, from the one behind the turn `after` on,
        which may be over."""
        last = await self._turns.get(params.after) if params.after else None
        if params.after and last is None:
            raise ToolError("`after` is none that an earlier answer gave.")
        return await self._turns.waiting(params.limit + 1, behind=last.seq if last else 0)

    async def _text(self, turn: Turn, owed: Sequence[OutboxEntry]) -> str:
        """What a turn has said: as long as its reply grows, as the homeserver knows it now."""
        entries = [one for one in owed if one.kind in (OutboxKind.MESSAGE, OutboxKind.FINAL)]
        texts = {entry.part: said_in(entry.content) for entry in entries}
        if turn.status is TurnStatus.RUNNING:
            begun = [entry for entry in entries if entry.kind is OutboxKind.MESSAGE]
            sent = {entry.part: entry.event_id for entry in begun if entry.event_id is not None}
            texts |= await self._newest(turn, sent)
        return "\n\n".join(texts[part] for part in sorted(texts))

    async def _newest(self, turn: Turn, sent: Mapping[int, str]) -> dict[int, str]:
        """What a reply's parts say in their newest versions, none of it where that is not
        known."""
        agent = self._directory.get(turn.agent_id)
        if agent is None:
            return {}
        ghost = self._homeserver.acting_as(agent.user_id)
        try:
            async with asyncio.timeout(_PATIENCE):
                events = await asyncio.gather(
                    *(ghost.event(turn.room_id, one) for one in sent.values())
                )
        except (MatrixRequestError, HomeserverUnavailable, TimeoutError) as error:
            log.info("what a running turn says by now is not known", error=repr(error))
            return {}
        newest = map(said_in, map(newest_content, events))
        return dict(zip(sent, newest, strict=True))


def notices_in(owed: Sequence[OutboxEntry]) -> list[str]:
    """What is said beside a reply."""
    kinds = (OutboxKind.NOTICE, OutboxKind.OFFER)
    return [cut(said_in(one.content), _LONGEST_NOTICE) for one in owed if one.kind in kinds]


def said_in(content: Mapping[str, object]) -> str:
    """The text of a message, as it is in its newest version, without the sign that it grows."""
    newest = mapping(content.get("m.new_content")) or content
    return str(newest.get("body", "")).removesuffix(CURSOR).rstrip()


def _may_see(caller: Caller, turn: Turn) -> bool:
    holder = caller.principal
    is_own = Scope.AGENTS in holder.scopes and turn.sender == caller.user_id
    return holder.may_act_in(turn.room_id) and (Scope.ADMIN in holder.scopes or is_own)

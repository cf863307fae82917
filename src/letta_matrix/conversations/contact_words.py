"""STOP, START and HELP of people on other networks."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from letta_matrix.common.parts import part
from letta_matrix.conversations.speakers import Speaker
from letta_matrix.portals.keywords import Keyword, keyword_in, told
from letta_matrix.portals.opt_outs import let_go_on
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.portals import Contact, Portal
from letta_matrix.store.turns import Outcome, Turn, TurnStatus

log = structlog.get_logger()

_AGAIN = 3_600.0
"""Seconds for which the same question for help is not answered again."""


@part
class ContactWords:
    """Honours them, answers each once and remembers it. `cancel` stops the messages' turns that
    match."""

    _speaker: Speaker
    _directory: AgentDirectory
    _cancel: Callable[[Callable[[Turn], bool]], Awaitable[int]]

    def __post_init__(self) -> None:
        self._policy = self._speaker.portals

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Take it to its end; everything before the answer may be done twice."""
        agent, portal = self._directory.get(turn.agent_id), self._policy.portal(turn.room_id)
        keyword = keyword_in(turn.prompt or "")
        if agent is None or portal is None or keyword is None:
            await self.give_up(turn)
            return
        entries = await self._speaker.left_of(turn, recovered=recovered)
        reply = self._speaker.of_agent(turn, agent, entries)
        if turn.status is not TurnStatus.REPLYING:
            if not await self._take(turn, portal, keyword, recovered=recovered):
                await self.give_up(turn)
                return
            await reply.freeze(told(turn.prompt or "", agent.name))
        await self._speaker.deliver(turn, reply)

    async def give_up(self, turn: Turn) -> None:
        """End it without a word."""
        await self._speaker.keep_silent(turn, Outcome.DROPPED)

    async def _take(self, turn: Turn, portal: Portal, keyword: Keyword, *, recovered: bool) -> bool:
        """Do what the word says; whether it is to be answered."""
        book, name = self._policy.book, portal.name
        key = self._policy.key_of(name, turn.sender)
        known = book.contact(name, key) or Contact(name, key)
        is_mine = recovered and (known.word, known.told_at) == (keyword, turn.sent_at)
        is_stopped = self._policy.decided(name, turn.sender).stopped
        match keyword:
            case Keyword.STOP:
                # It holds since it was heard; whoever was told of no word since is told now.
                is_new = not is_stopped or (known.stopped and not known.word)
                await self._cancel(lambda one: one.room_id == turn.room_id)
            case Keyword.START:
                is_new = is_stopped
                names = self._policy.all_names(name, turn.sender)
                await let_go_on(book, name, names, turn.sent_at)
            case Keyword.HELP:
                is_new = known.word != keyword or turn.sent_at - known.told_at > _AGAIN
        if is_new or is_mine:
            log.info("a contact's word is honoured", bridge=name, word=str(keyword))
            stopped = keyword is Keyword.STOP or (keyword is Keyword.HELP and is_stopped)
            known = book.contact(name, key) or known
            await book.decide(
                replace(known, stopped=stopped, word=str(keyword), told_at=turn.sent_at)
            )
        return is_new or is_mine

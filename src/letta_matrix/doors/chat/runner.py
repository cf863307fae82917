"""Runs a command from wherever it stands to its end, and answers it once."""

from collections.abc import Sequence
from dataclasses import field

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.common.parts import part
from letta_matrix.config import Role
from letta_matrix.conversations import notices
from letta_matrix.conversations.reply import Notice
from letta_matrix.doors.chat.command import Command, CommandContext, CommandFault
from letta_matrix.doors.chat.parse import parse_arguments, split_line
from letta_matrix.doors.chat.registry import all_commands, find, usable_by
from letta_matrix.doors.chat.services import CommandServices
from letta_matrix.doors.chat.texts import clip
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.records import (
    Agent,
    AgentStatus,
    Outcome,
    StoreUnavailable,
    Turn,
    TurnStatus,
)
from letta_matrix.operations.runtimes_told import SAID
from letta_matrix.operations.typed import Where

log = structlog.get_logger()

_LONGEST_ANSWER = 16_000
"""Bytes: an event holds 65,536, with the text as Markdown and as HTML."""


@part
class CommandRunner:
    """Takes turns that are commands to their end; holds no command's state."""

    _homeserver: Homeserver
    _services: CommandServices
    _commands: Sequence[Command] = field(default_factory=all_commands)

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Do a command and answer it exactly once. `recovered`: an earlier try may have done it.

        Raises StoreUnavailable, HomeserverUnavailable, TimeoutError where an operation took too
        long, or whatever a faulty handler or operation raises.
        """
        speaker = self._services.speaker
        reply = await speaker.reply(turn, recovered=recovered)
        if reply is None:
            await speaker.keep_silent(turn, Outcome.DROPPED)
            return
        if turn.status is not TurnStatus.REPLYING:
            answer = await self._answer(turn, recovered=recovered)
            if not answer:
                await speaker.keep_silent(turn, Outcome.ANSWERED)
                return
            await reply.freeze("", Notice(clip(answer, _LONGEST_ANSWER)))
        await speaker.deliver(turn, reply)

    async def give_up(self, turn: Turn) -> None:
        """End a command that cannot be run, with a word to the person."""
        speaker = self._services.speaker
        reply = await speaker.reply(turn, recovered=True)
        if reply is None or self._is_silent(turn):
            await speaker.keep_silent(turn, Outcome.FAILED)
            return
        if turn.status is not TurnStatus.REPLYING:
            await reply.freeze("", Notice(notices.BROKEN), Outcome.FAILED)
        await speaker.deliver(turn, reply)

    async def _answer(self, turn: Turn, *, recovered: bool) -> str | None:
        config = self._services.config
        role, agents = config.role_of(turn.sender), self._agents(turn)
        name, words = split_line(turn.prompt or "help")
        if role == "block":
            return None
        try:
            if self._is_too_old(turn):
                raise CommandFault(
                    notices.expired(round(config.conversations.max_event_age / 3600, 1))
                )
            command = self._command(name, role, agents)
            context = CommandContext(
                turn,
                agents,
                role,
                self._services,
                parse_arguments(command, words),
                self._commands,
                recovered,
            )
            return await command.handler(context)
        except CommandFault as fault:
            answer = str(fault)
        except ToolError as error:
            answer = _refusal(error, name)
        return None if self._is_silent(turn) else answer

    def _command(self, name: str, role: Role, agents: Sequence[Agent]) -> Command:
        by_name = {key: one for one in self._commands for key in (one.name, *one.aliases)}
        command = by_name.get(name)
        if command is None:
            # What somebody may not use is not hinted at either.
            return find(usable_by(self._commands, role, in_room=bool(agents)), name)
        if command.permission == "admin" and role != "admin":
            raise CommandFault(
                f"{code('!' + command.name)} is for admins only; `!help` lists what you may use."
            )
        if command.scope is Where.AGENT and not agents:
            raise CommandFault(
                f"{code('!' + command.name)} is about an agent: say it in that agent's room."
            )
        return command

    def _agents(self, turn: Turn) -> list[Agent]:
        """The agents that a command is about: its own one, else all that are in the room."""
        directory = self._services.directory
        if turn.agent_id:
            own = directory.get(turn.agent_id)
            return [own] if own is not None else []
        found = map(directory.by_user, self._services.rooms.ours_in(turn.room_id))
        return [one for one in found if one is not None and one.status is AgentStatus.ACTIVE]

    def _is_too_old(self, turn: Turn) -> bool:
        age = self._homeserver.clock.now() - turn.sent_at
        begun = turn.status is not TurnStatus.QUEUED
        return not begun and age > self._services.config.conversations.max_event_age

    def _is_silent(self, turn: Turn) -> bool:
        """Whether it stands for a reaction, which is never answered."""
        name, _ = split_line(turn.prompt or "")
        return any(one.hidden and one.name == name for one in self._commands)


def _refusal(error: ToolError, command: str) -> str:
    """What to answer to a call that was not carried out. Raises the cause of what may go better
    at another try."""
    cause = error.__cause__
    match cause:
        case StoreUnavailable() | HomeserverUnavailable() | TimeoutError():
            raise cause from error
        case _ if isinstance(cause, MatrixRequestError) or error.detail == SAID:
            return _failed(error, command)
        case _ if error.fault is Fault.FAILED:
            raise cause or error
        case _:
            return str(error)


def _failed(error: Exception, command: str) -> str:
    """An answer that quotes others' words, which are no Markdown."""
    log.info("a command failed", command=command, reason=str(error))
    return f"That did not work: {code(str(error), limit=300)}"

"""Commands as data: what they are called, what they take, who may use them, what they do."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal, TypeVar

from letta_matrix.access.principal import TOOL_SCOPES, Principal, Scope
from letta_matrix.config import Role
from letta_matrix.doors.chat.services import CommandServices
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.records import Agent, Place, Turn, TurnStatus
from letta_matrix.operations.typed import Argument, Where

Value = str | int | bool


class CommandFault(Exception):
    """A command cannot be done; the text says why and what to do, as Markdown."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments that were given, by their names."""

    values: Mapping[str, Value] = field(default_factory=dict[str, Value])

    def text(self, name: str) -> str:
        """A word, choice, text or option; "" where it was not given."""
        return str(self.values.get(name, ""))

    def number(self, name: str) -> int | None:
        value = self.values.get(name)
        return int(value) if value is not None else None

    def flag(self, name: str) -> bool:
        return bool(self.values.get(name))


@dataclass(frozen=True, slots=True)
class CommandContext:
    """One command as it was given.

    `agents` are those it is about: the one whose room it is, or all that are in a shared room.
    `recovered`: it was begun before a crash, and `remembered` is what `remember` stored then.
    What `do` did then it does not do again.
    """

    turn: Turn
    agents: Sequence[Agent]
    role: Role
    services: CommandServices
    arguments: Arguments
    commands: Sequence["Command"]
    recovered: bool = False

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    @property
    def agent(self) -> Agent:
        """The one agent it is about. Raises CommandFault where there are several."""
        if len(self.agents) != 1:
            raise CommandFault("Several agents are here: say it in the room of the one you mean.")
        return self.agents[0]

    @property
    def in_shared_room(self) -> bool:
        """Whether the room is neither an agent's own nor one to talk to the bot alone."""
        own = any(agent.room_id == self.turn.room_id for agent in self.agents)
        return bool(self.agents) and not own

    def typed(self, line: str) -> str:
        """A command as it is to be typed here, as Markdown."""
        return code(f"!letta {line}" if self.in_shared_room else f"!{line}")

    @property
    def remembered(self) -> Mapping[str, object]:
        return self.turn.runtime_state or {}

    async def remember(self, choice: Mapping[str, object]) -> None:
        """Store durably what the command is about to act on: after a crash a number or a name
        may mean something else."""
        await self.services.turns.run(self.turn, choice)

    async def do(self, operation: str, *, step: str = "", **arguments: object) -> Any:
        """Carry out an operation in the name of whoever gave the command: once for the command,
        or for each `step` of it. Raises ToolError, StoreUnavailable."""
        turn, scopes = self.turn, frozenset(Scope) if self.is_admin else TOOL_SCOPES
        if turn.status is TurnStatus.QUEUED:
            # From here on it is answered with what it did, however late.
            await self.services.turns.run(turn, self.remembered)
        return await self.services.toolbox.do(
            Principal(f"user:{turn.sender}", "", scopes),
            operation,
            arguments,
            door="chat",
            transaction_id=txn_id(turn.turn_id, step) if step else turn.turn_id,
            turn=turn,
        )

    async def horizon(self, agent: Agent) -> float:
        """From when on (Unix time) whoever gave it may read what was said here."""
        if self.is_admin:
            return 0.0
        room_id, person = self.turn.room_id, self.turn.sender
        return await self.services.roster.readable_since(room_id, person, agent.user_id)

    def place_of(self, agent: Agent) -> Place:
        """Where the command was given, for one of the agents."""
        return Place(agent.agent_id, self.turn.room_id, self.turn.thread_id)


Handler = Callable[[CommandContext], Awaitable[str | None]]
"""Does a command and returns what to answer, as Markdown; nothing is answered to None.

Raises CommandFault, ToolError or StoreUnavailable. It may run again after a crash."""


Run = TypeVar("Run", bound=Handler)

_DECLARED = "declared"


@dataclass(frozen=True, slots=True)
class Command:
    """A command; `help` is one line that ends in a full stop.

    A `hidden` one stands for a reaction: it is left out of the help, and fails in silence.
    """

    name: str
    handler: Handler
    help: str
    arguments: tuple[Argument, ...] = ()
    aliases: tuple[str, ...] = ()
    permission: Literal["user", "admin"] = "user"
    scope: Where = Where.AGENT
    hidden: bool = False

    @property
    def usage(self) -> str:
        return " ".join([f"!{self.name}", *(argument.shown for argument in self.arguments)])


def command(*arguments: Argument, name: str = "", **fields: Any) -> Callable[[Run], Run]:
    """Declares a handler as a command, which is called as the function is, and whose docstring
    is its help; `fields` are further ones of `Command`."""

    def declare(run: Run) -> Run:
        run.__dict__[_DECLARED] = (name, arguments, fields)
        return run

    return declare


def declared_in(module: ModuleType) -> list[Command]:
    """The commands that a module's functions are declared as, in their order."""
    found = vars(module).values()
    return [made(one) for one in found if _DECLARED in getattr(one, "__dict__", {})]


def made(run: Handler) -> Command:
    """The command that a handler is declared as."""
    name, arguments, fields = getattr(run, _DECLARED)
    words = " ".join((run.__doc__ or "").split())
    told = words[0].lower() + words[1:]
    return Command(name or run.__name__.replace("_", "-"), run, told, arguments, **fields)

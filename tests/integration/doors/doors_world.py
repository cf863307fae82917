"""A bridge with all its doors open, two agents on it, and what agents do there."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.fake_issuer import AUDIENCE, FakeIssuer
from tests.integration.bridge_world import Json, Person, Room, World, bridge_on, new_agent
from tests.scripts import DONE, obey
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.runtimes.memory import Answer, MemoryRuntime, echo
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    Capabilities,
    TextDelta,
    TurnEvent,
    TurnRequest,
)

BOT = "@letta:localhost"
Steps = Iterable[TurnEvent | float]


@dataclass(frozen=True)
class Account:
    """Somebody whose password is known."""

    person: Person
    password: str

    @property
    def user_id(self) -> str:
        return self.person.user_id


async def new_account(homeserver: Homeserver, name: str) -> Account:
    who, token, password = await homeserver.register(f"{name}_{secrets.token_hex(3)}")
    return Account(Person(homeserver.http, homeserver.url, who, token), password)


async def room_with_bot(world: World) -> Room:
    """The room of a new agent, once the bot is in it too."""
    made = await world.meet(new_agent(f"Ida {new_key()}"))

    async def joined() -> bool:
        members = await world.person.members(made.room_id)
        return members.get(world.config.bot_user_id) == "join"

    await world.person.watch(made.room_id, joined, what="the bot comes")
    return made


@dataclass
class Gates:
    """What agents do, who go on when a test says so.

    `held KEY` answers when `open(KEY)` was called, `words KEY COUNT` says a word more at each
    such call, `run COMMAND` asks first; else as `obey`.
    """

    opened: Counter[str] = field(default_factory=Counter[str])

    def open(self, key: str, times: int = 1) -> None:
        self.opened[key] += times

    def play(self, request: TurnRequest) -> Steps:
        # Above the last line stands who has written it.
        line = request.text.rstrip().rpartition("\n")[2]
        match line.split():
            case []:
                return echo(request)
            case ["held", key, *_]:
                return self._held(key, request)
            case ["words", key, count]:
                return self._words(key, int(count))
            case ["run", *_]:
                return asks(request, line)
            case _:
                return obey(replace(request, text=line))

    def _held(self, key: str, request: TurnRequest) -> Steps:
        yield from self._until(key, 1)
        yield from echo(request)

    def _words(self, key: str, count: int) -> Steps:
        for number in range(count):
            yield TextDelta("0", f"word{number} ")
            yield from self._until(key, number + 1)
        yield DONE

    def _until(self, key: str, times: int) -> Steps:
        while self.opened[key] < times:
            yield 0.01


def asks(request: TurnRequest, line: str) -> Generator[TurnEvent | float, Answer | None, None]:
    command = {"command": line.removeprefix("run ")}
    answer = yield ApprovalRequested(request.message_id, "Bash", command, always=False)
    while answer is None:  # it was cancelled
        answer = yield 0.0
    yield TextDelta("0", "done" if answer.allow else f"not done: {answer.message}")
    yield DONE


@dataclass(frozen=True)
class Doors:
    """The bridge, with agents for tests that leave them as they are; others make their own."""

    world: World
    gates: Gates
    ada: Room
    bea: Room


@asynccontextmanager
async def doors_on(
    homeserver: Homeserver,
    directory: Path,
    issuer: FakeIssuer,
    ann: Person,
    boss: Account,
    mallory: Account,
) -> AsyncGenerator[Doors]:
    """`ann` and `boss` are admins, as is `ann` of the issuer; `mallory` is blocked."""
    oidc = {"issuer": issuer.url, "audience": AUDIENCE, "admins": ["ann"]}
    audit_room = await ann.create_room(BOT)
    sections: Json = {
        "access": {"calls_per_minute": 1_000_000, "oidc": oidc, "audit_room": audit_room},
        "conversations": {"max_hops": 1, "tool_calls_per_minute": 1_000_000},
        "permissions": {boss.user_id: "admin", mallory.user_id: "block"},
        # As test_proxies.py calls them.
        "api": {"allowed_hosts": ["letta.example.org"]},
        "mcp": {"allowed_hosts": ["mcp.example.org"]},
    }
    gates = Gates()
    runtime = MemoryRuntime(script=gates.play)
    fixed = MemoryRuntime("fixed", agents=1, capabilities=Capabilities(manage=False))
    async with bridge_on(homeserver, directory, ann, runtime, fixed, **sections) as world:
        mark = secrets.token_hex(3)
        people = [new_agent(f"{name} {mark}") for name in ("Ada", "Bea")]
        ada, bea = await asyncio.gather(*map(world.meet, people))
        yield Doors(world, gates, ada, bea)


async def conversation_of(world: World, text: str) -> str:
    """The conversation in which an agent was told this, once it was."""

    def told() -> list[str]:
        return [r.conversation_id for r in world.runtime.asked if r.text.endswith(text)]

    return (await eventually(told))[0]


def new_key() -> str:
    """For what no other test does."""
    return secrets.token_hex(6)

"""How much a run measures."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Sample sizes; times in seconds."""

    echoes: int = 100
    logins: int = 30
    agents: int = 100
    throughput_rounds: int = 5
    together_rounds: int = 6
    first_messages: int = 20
    turns: int = 40
    renames: int = 20
    streams: int = 3
    thread_rounds: int = 5
    approvals: int = 15
    tool_turns: int = 6
    calls: int = 100
    mcp_clients: int = 200
    kills: int = 3
    takeovers: int = 10
    restarts: int = 3
    bursts: int = 5
    idle: float = 15.0
    waiting: int = 20_000
    replicas: tuple[int, ...] = (1, 2, 4)
    ceilings: tuple[tuple[int, int], ...] = ((50, 5000), (1000, 5000))
    """Agents and turns."""


WHOLE = Plan()
QUICK = Plan(
    echoes=15,
    logins=6,
    agents=12,
    throughput_rounds=1,
    together_rounds=1,
    first_messages=8,
    turns=8,
    renames=4,
    streams=1,
    thread_rounds=2,
    approvals=4,
    tool_turns=3,
    calls=20,
    mcp_clients=40,
    kills=1,
    takeovers=3,
    restarts=1,
    bursts=1,
    idle=5.0,
    waiting=5000,
    replicas=(1, 2),
    ceilings=((50, 1500),),
)

"""Who asks, how the bridge is, and what it has done."""

from collections import Counter
from typing import Any

from fastapi import Request
from pydantic import ConfigDict, Field

from letta_matrix.access.principal import Scope
from letta_matrix.common.vitals import State
from letta_matrix.doors.rest.routing import Answer, router_for
from letta_matrix.doors.rest.security import Api, Holder, Reader, needs
from letta_matrix.doors.web.health import counted
from letta_matrix.operations.records import AgentStatus

router = router_for("bridge")


class WhoAmI(Answer):
    """A token's holder."""

    principal: str = Field(description="how the audit log names you")
    agent_id: str = Field(description="as whom you act; empty: the bot")
    user_id: str
    scopes: list[str]
    rooms: list[str] | None = Field(description="the only rooms you may act in; null: all")
    destructive: bool = Field(description="whether you may do what cannot be undone")


class HealthCheck(Answer):
    """How one thing is."""

    name: str
    state: State
    says: str = Field(description="what is wrong, empty for nothing")
    remedy: str = Field(description="what to do about it, empty where it may pass by itself")
    watches: str = Field(default="", description="what is so while nothing is wrong")
    who: str = Field(default="", description="whom it concerns, by name; for admins")


class Health(Answer):
    """How the bridge is; more figures may come."""

    model_config = ConfigDict(extra="allow")

    status: str = Field(description="`ok` or `degraded`")
    ready: bool = Field(
        description="the homeserver is connected and reaches us, and all agents are set up"
    )
    troubles: list[str] = Field(description="what is wrong, in words")
    warnings: list[str] = Field(description="what is to be known, and leaves `status` as it is")
    checks: list[HealthCheck] = Field(description="the same by name, with those where nothing is")


class Stats(Answer):
    """Figures since the bridge started, and how things stand."""

    uptime_seconds: float
    agents: dict[str, int] = Field(description="by status")
    turns: dict[str, int] = Field(description="those that run or wait, by status")
    homeserver: dict[str, float] = Field(description="requests that changed something, latency")
    answers: dict[str, int] = Field(description="of this API, by kind of status")
    counters: dict[str, int]
    runtimes: dict[str, dict[str, int]]


@router.get("/whoami")
async def whoami(api: Api, holder: Holder) -> WhoAmI:
    """Tell what your token is good for."""
    agent = api.directory.get(holder.agent_id)
    return WhoAmI(
        principal=holder.key,
        agent_id=holder.agent_id,
        user_id=agent.user_id if agent is not None else api.config.bot_user_id,
        scopes=sorted(holder.scopes),
        rooms=None if holder.rooms is None else sorted(holder.rooms),
        destructive=holder.destructive,
    )


@router.get("/health")
async def health(api: Api, holder: Holder) -> Health:
    """Tell how the bridge is; admins also learn why agents are in trouble."""
    report = api.health()
    return Health.model_validate(dict(report) if Scope.ADMIN in holder.scopes else counted(report))


@router.get("/stats", openapi_extra=needs(Scope.READ))
async def stats(request: Request, api: Api, _: Reader) -> Stats:
    """Tell what the bridge has done, and what waits."""
    report: dict[str, Any] = dict(api.health())
    answers: Counter[str] = request.app.state.answers
    agents = Counter[str](str(agent.status) for agent in api.directory.all())
    return Stats(
        uptime_seconds=report["uptime_seconds"],
        agents=dict(agents) or {str(AgentStatus.ACTIVE): 0},
        turns=dict(Counter(str(turn.status) for turn in api.unfinished())),
        homeserver={
            "writes": report["homeserver_writes"],
            "latency_ms": report["homeserver_latency_ms"],
            "stuck": api.homeserver.retries.stuck,
        },
        answers=dict(answers),
        counters=report["counters"],
        runtimes=report["runtimes"],
    )

"""Health for probes and people: `/health` (alive, with figures) and `/ready` (all set up)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence, Sized
from datetime import UTC, datetime
from typing import cast

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

HealthReport = Callable[[], Mapping[str, object]]
"""Tells JSON with at least `status` and `ready`."""


def health_routes(
    report: HealthReport,
    is_ready: Callable[[], Awaitable[bool]],
    knows: Callable[[Request], bool],
) -> list[Route]:
    """`/ready` answers 503 until `is_ready`; `knows` tells whether a request is for this door."""

    async def health(request: Request) -> JSONResponse:
        return JSONResponse(answer(report(), known=knows(request)))

    async def ready(_request: Request) -> JSONResponse:
        done = await is_ready()
        return JSONResponse({"ready": done}, status_code=200 if done else 503)

    return [Route("/health", health), Route("/ready", ready)]


def answer(report: Mapping[str, object], *, known: bool) -> dict[str, object]:
    """What `/health` answers, on every port, with the status 200.

    Requests that the door does not know, by their `Host` or `Origin`, get no more than a probe
    needs: a page of strangers may read the answer (DNS rebinding).
    """
    if known:
        return told(report)
    return told({name: report[name] for name in ("status", "ready")})


def told(report: Mapping[str, object]) -> dict[str, object]:
    """What `/health` answers: the report, and the fields that the original integration has."""
    return {
        **counted(report),
        "authenticated": report.get("ready", False),
        "agent_sync_available": True,
        "timestamp": datetime.now(UTC).isoformat(),
    }


def counted(report: Mapping[str, object]) -> dict[str, object]:
    """The report for those who are no admins: how many agents are in trouble, not which, and
    nobody's name in the checks."""
    shown = dict(report)
    if isinstance(agents := report.get("agents_in_trouble"), Sized):
        shown["agents_in_trouble"] = len(agents)
    if "checks" in report:
        checks = cast("Sequence[Mapping[str, object]]", report["checks"])
        shown["checks"] = [
            {name: value for name, value in check.items() if name != "who"} for check in checks
        ]
    if isinstance(replica := report.get("replica"), Mapping):
        shown["replica"] = without_addresses(cast("Mapping[str, object]", replica))
    return shown


def without_addresses(replica: Mapping[str, object]) -> dict[str, object]:
    """How a replica and the others are, without where they are."""
    others = cast("Sequence[Mapping[str, object]]", replica["replicas"])
    named = [{name: one[name] for name in one if name != "address"} for one in others]
    return {**replica, "replicas": named}

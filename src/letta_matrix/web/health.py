"""Health for probes and people: `/health` (alive, with figures) and `/ready` (all set up)."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

HealthReport = Callable[[], Mapping[str, object]]


def health_routes(report: HealthReport, is_ready: Callable[[], bool]) -> list[Route]:
    """`report` returns JSON with at least `status`; `/ready` answers 503 until `is_ready`."""

    async def health(_request: Request) -> JSONResponse:
        return JSONResponse(told(report()))

    async def ready(_request: Request) -> JSONResponse:
        done = is_ready()
        return JSONResponse({"ready": done}, status_code=200 if done else 503)

    return [Route("/health", health), Route("/ready", ready)]


def told(report: Mapping[str, object]) -> dict[str, object]:
    """What `/health` answers: the report, and the fields that the original integration has."""
    return {
        **report,
        "authenticated": report.get("ready", False),
        "agent_sync_available": True,
        "timestamp": datetime.now(UTC).isoformat(),
    }

"""Health for probes and people: `/health` (alive, with figures) and `/ready` (all set up)."""

from collections.abc import Callable, Mapping

from aiohttp import web

HealthReport = Callable[[], Mapping[str, object]]


def health_routes(report: HealthReport, is_ready: Callable[[], bool]) -> list[web.RouteDef]:
    """`report` returns JSON with at least `status`; `/ready` answers 503 until `is_ready`."""

    async def health(_request: web.Request) -> web.Response:
        return web.json_response(dict(report()))

    async def ready(_request: web.Request) -> web.Response:
        done = is_ready()
        return web.json_response({"ready": done}, status=200 if done else 503)

    return [web.get("/health", health), web.get("/ready", ready)]

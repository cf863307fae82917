"""`/health` answers always, `/ready` only when all is set up."""

import aiohttp
from aiohttp import web

from letta_matrix.web.health import health_routes


async def test_health_and_readiness() -> None:
    ready = False
    app = web.Application()
    app.add_routes(health_routes(lambda: {"status": "degraded", "troubles": ["x"]}, lambda: ready))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession(url) as http:
        async with http.get("/health") as response:
            assert response.status == 200
            assert await response.json() == {"status": "degraded", "troubles": ["x"]}
        async with http.get("/ready") as response:
            assert (response.status, await response.json()) == (503, {"ready": False})
        ready = True
        async with http.get("/ready") as response:
            assert (response.status, await response.json()) == (200, {"ready": True})
    await runner.cleanup()

"""A stand-in for the bridge: healthy and ready at once. `python fake_bridge.py PORT`."""

import sys

from aiohttp import web


async def ok(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


if __name__ == "__main__":
    application = web.Application()
    application.router.add_get("/health", ok)
    application.router.add_get("/ready", ok)
    web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), print=None)

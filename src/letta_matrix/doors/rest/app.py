"""The REST API as an ASGI application."""

from collections import Counter

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware

from letta_matrix import __version__
from letta_matrix.access.guard import Guarded, api_guard
from letta_matrix.access.streams import OpenStreams
from letta_matrix.doors.rest import (
    agents,
    compat,
    compat_agents,
    health,
    media,
    messages,
    openapi,
    overview,
    problems,
    public,
    rooms,
    speaking,
    tokens,
    tools,
)
from letta_matrix.doors.rest.compat_login import Logins
from letta_matrix.doors.rest.limits import Limits
from letta_matrix.doors.rest.passing import operations_router
from letta_matrix.doors.rest.paths import SlashesInSegments
from letta_matrix.doors.rest.services import Services

_OURS = (public, rooms, messages, media, agents, speaking, overview, tools, tokens, health)
_ORIGINAL = (compat, compat_agents)

FOLLOWING = 100
"""Answers of agents that a token may wait for at once."""


def make_app(services: Services) -> FastAPI:
    """The application; `/ready`, `/chat`, `/docs` and, for browsers, `/` are served before it."""
    app = FastAPI(
        title="letta-matrix",
        version=__version__,
        openapi_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_name,
    )
    app.state.services = services
    app.state.answers = Counter[str]()
    app.state.logins = Logins(services)
    app.state.following = OpenStreams(FOLLOWING, "answers of agents")
    problems.install(app)
    for module in (*_OURS, *_ORIGINAL):
        app.include_router(module.router)
    app.include_router(operations_router())
    openapi.install(app)
    _surround(app, services)
    return app


def _name(route: APIRoute) -> str:
    """What an operation is called, here and in clients."""
    return route.name


def _surround(app: FastAPI, services: Services) -> None:
    """The middleware, the innermost first."""
    settings = services.config.api
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(SlashesInSegments)
    app.add_middleware(Guarded, guard=api_guard(services.config))
    app.add_middleware(Limits, most=settings.max_body_bytes, answers=app.state.answers)

"""Who may come in by the paths of the original Letta-Matrix integration."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from letta_matrix.access.principal import Principal, Scope
from letta_matrix.doors.rest.problems import COMMON, Problem
from letta_matrix.doors.rest.security import BEARER, Api, JsonRoute, peer_of, require
from letta_matrix.doors.rest.services import Services


class Compatible(JsonRoute):
    """A route whose problems have the fields `success` and `message`, too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def compatible(request: Request) -> Response:
            request.state.compatible = True
            return await handle(request)

        return compatible


async def _door(
    request: Request,
    api: Api,
    _: Annotated[Any, Depends(BEARER)],
    token: Annotated[
        str,
        Header(
            alias="X-Access-Token",
            pattern=r"^[A-Za-z0-9._~+/=-]*$",
            description="instead of Authorization",
        ),
    ] = "",
) -> Callable[..., Awaitable[Principal]]:
    given = request.headers.get("Authorization") or (token and f"Bearer {token}")

    async def admit(scope: Scope, in_body: str = "") -> Principal:
        header = given or (in_body and f"Bearer {in_body}")
        holder = await api.authenticator.admit(header or None, peer_of(request))
        require(holder, scope)
        return holder

    return admit


Admit = Annotated[Callable[..., Awaitable[Principal]], Depends(_door)]
"""Gives whoever sends a token with a scope, wherever the request has it: the body may have it too.
Raises Problem, Unauthorized, TooOften."""

Homeserver = Annotated[
    str, Query(max_length=1_000, description="if given, the one the bridge is configured for")
]


def compatible_router() -> APIRouter:
    """A router for such paths."""
    return APIRouter(tags=["compatible"], route_class=Compatible, responses=COMMON)


def check_homeserver(api: Services, named: str) -> None:
    """Raises Problem for another homeserver than ours; none is ever contacted by this."""
    settings = api.config.homeserver
    known = {settings.url, api.config.api.homeserver_url or settings.url}
    if named and named != settings.domain and _origin(named) not in map(_origin, known):
        raise Problem(
            "foreign-homeserver",
            f"`homeserver` should be {settings.domain}, or be left out: the bridge talks to no "
            "other one.",
        )


def _origin(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    return parts.scheme, parts.netloc.lower()

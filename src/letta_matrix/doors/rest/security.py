"""Who may call an endpoint, and how."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from letta_matrix.access.metadata import scope_challenge
from letta_matrix.access.principal import Principal, Scope
from letta_matrix.doors.rest.problems import Problem
from letta_matrix.doors.rest.services import Services
from letta_matrix.operations.toolbox.results import cut

# Only for the OpenAPI document: the header is read by the authenticator.
BEARER = HTTPBearer(
    scheme_name="token",
    auto_error=False,
    description="A token made by `letta-matrix tokens create`: `Authorization: Bearer lm_...`.",
)


SCOPE = "x-scope"
"""Where the OpenAPI document has the scope that an endpoint needs."""

_SEND_JSON = "Send the JSON with `Content-Type: application/json`."
_SHOWN = 5


def services_of(request: Request) -> Services:
    return request.app.state.services


def peer_of(request: Request) -> str:
    """The address that a request comes from."""
    return request.client.host if request.client is not None else ""


class JsonRoute(APIRoute):
    """A route whose body, if it takes one, is JSON and is declared to be."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def declared(request: Request) -> Response:
            if self.body_field is not None and not _is_json(request) and await request.body():
                raise Problem("unsupported-media-type", _SEND_JSON)
            return await handle(request)

        return declared


class Protected(JsonRoute):
    """A route whose token is checked before anything of the body is read, and that refuses a
    query it does not know."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = sorted(_query_of(self.dependant))

        async def admitted(request: Request) -> Response:
            services = services_of(request)
            header = request.headers.get("Authorization")
            principal = await services.authenticator.admit(header, peer_of(request))
            request.state.principal = principal
            _check_query(request, known)
            most = services.config.api.max_body_bytes
            caller, scope = principal.caller, request.scope
            async with services.in_flight.body(caller, scope, request.receive, most) as receive:
                return await handle(Request(scope, receive))

        return admitted


async def principal_of(request: Request, _: Annotated[Any, Depends(BEARER)]) -> Principal:
    """The token's holder, as `Protected` found it."""
    return request.state.principal


async def _services(request: Request) -> Services:
    # Async, or it would go through a thread at every request.
    return services_of(request)


Api = Annotated[Services, Depends(_services)]
Holder = Annotated[Principal, Depends(principal_of)]


async def follows(request: Request, principal: Holder) -> AsyncGenerator[None]:
    """A dependency: the request waits for an agent, until it is answered to its end. Raises
    TooOften where the token has too many of these."""
    with request.app.state.following.opened(principal):
        yield


def require(principal: Principal, scope: Scope) -> None:
    """Raises Problem for a token without a scope."""
    if scope not in principal.scopes:
        headers = {"WWW-Authenticate": scope_challenge(scope)}
        raise Problem("forbidden", f"This needs a token with the scope `{scope}`.", headers)


def holder_with(scope: Scope) -> Callable[[Principal], Awaitable[Principal]]:
    """A dependency: the token's holder, whose token must have a scope."""

    async def check(principal: Holder) -> Principal:
        require(principal, scope)
        return principal

    return check


def needs(scope: Scope) -> dict[str, Any]:
    """What an endpoint documents (`openapi_extra=`): the scope that its token must have."""
    return {SCOPE: str(scope)}


Reader = Annotated[Principal, Depends(holder_with(Scope.READ))]
Admin = Annotated[Principal, Depends(holder_with(Scope.ADMIN))]


def _is_json(request: Request) -> bool:
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return re.fullmatch(r"application/([^/]+\+)?json", media_type) is not None


def _query_of(dependant: Dependant) -> set[str]:
    """What a route and what it depends on take from the query."""
    names = {parameter.alias for parameter in dependant.query_params}
    return names.union(*map(_query_of, dependant.dependencies))


def _check_query(request: Request, known: list[str]) -> None:
    """Raises Problem for parameters that are not known: one that is misspelt changes nothing."""
    unknown = [name for name in request.query_params if name not in known][:_SHOWN]
    if not unknown:
        return
    taken = ", ".join(f"`{name}`" for name in known)
    said = f"is not known; this takes {taken}." if known else "is not known; this takes no query."
    faults = [{"where": f"query.{cut(name, 90)}", "fault": said} for name in unknown]
    detail = ", ".join(fault["where"] for fault in faults)
    raise Problem("invalid-arguments", f"{detail}: {said}", more={"faults": faults})

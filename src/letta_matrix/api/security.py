"""Who may call an endpoint."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from letta_matrix.access.metadata import scope_challenge
from letta_matrix.api.problems import Problem
from letta_matrix.api.services import Services
from letta_matrix.toolbox.principal import Principal, Scope

# Only for the OpenAPI document: the header is read by the authenticator.
BEARER = HTTPBearer(
    scheme_name="token",
    auto_error=False,
    description="A token made by `letta-matrix tokens create`: `Authorization: Bearer lm_...`.",
)


def services_of(request: Request) -> Services:
    return request.app.state.services


def peer_of(request: Request) -> str:
    """The address that a request comes from."""
    return request.client.host if request.client is not None else ""


class Protected(APIRoute):
    """A route whose token is checked before anything of the body is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def admitted(request: Request) -> Response:
            authenticator = services_of(request).authenticator
            header = request.headers.get("Authorization")
            request.state.principal = await authenticator.admit(header, peer_of(request))
            return await handle(request)

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


Reader = Annotated[Principal, Depends(holder_with(Scope.READ))]
Admin = Annotated[Principal, Depends(holder_with(Scope.ADMIN))]

"""Who may call an endpoint."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from letta_matrix.api.problems import Problem
from letta_matrix.api.services import Services
from letta_matrix.toolbox.principal import Principal, Scope

# Only for the OpenAPI document: the header is read by the authenticator.
_BEARER = HTTPBearer(auto_error=False, description="a token made by `letta-matrix tokens create`")


def services_of(request: Request) -> Services:
    return request.app.state.services


async def principal_of(request: Request, _: Annotated[Any, Depends(_BEARER)]) -> Principal:
    """The token's holder. Raises Unauthorized, TooOften."""
    authorization = request.headers.get("Authorization")
    return await services_of(request).authenticator.admit(authorization)


Api = Annotated[Services, Depends(services_of)]
Holder = Annotated[Principal, Depends(principal_of)]


def holder_with(scope: Scope) -> Callable[[Principal], Awaitable[Principal]]:
    """A dependency: the token's holder, whose token must have a scope."""

    async def check(principal: Holder) -> Principal:
        if scope not in principal.scopes:
            raise Problem(403, "forbidden", f"This needs a token with the scope `{scope}`.")
        return principal

    return check


Admin = Annotated[Principal, Depends(holder_with(Scope.ADMIN))]

"""The end of a token, which is that of the login it is for as well."""

from typing import Annotated

from fastapi import Path

from letta_matrix.access.principal import Scope
from letta_matrix.doors.rest.calling import do
from letta_matrix.doors.rest.problems import may
from letta_matrix.doors.rest.routing import router_for
from letta_matrix.doors.rest.security import Admin, Api, needs

router = router_for("tokens")

TokenId = Annotated[str, Path(max_length=100, examples=["a1b2c3d4e5f6"])]


@router.delete(
    "/tokens/{token_id}",
    status_code=204,
    responses=may("not-found"),
    openapi_extra=needs(Scope.ADMIN),
)
async def revoke_token(api: Api, holder: Admin, token_id: TokenId) -> None:
    """Revoke a token: it is refused at once."""
    await do(api, holder, "tokens.revoke", {"token_id": token_id})
    await api.logins.end_of(token_id)

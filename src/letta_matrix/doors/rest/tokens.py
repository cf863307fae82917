"""The bridge's own tokens: who has them, new ones, and their end."""

from typing import Annotated

from fastapi import Path
from pydantic import Field

from letta_matrix.client import types
from letta_matrix.doors.rest.calling import do
from letta_matrix.doors.rest.problems import Problem, may
from letta_matrix.doors.rest.routing import After, Answer, Limit, router_for, told
from letta_matrix.doors.rest.security import Admin, Api
from letta_matrix.operations.tokens import CreateToken

router = router_for("tokens")

TokenId = Annotated[str, Path(max_length=100, examples=["a1b2c3d4e5f6"])]


class TokenPage(Answer):
    tokens: list[types.Token]
    next: str | None = Field(description="`after` of the next request; null: no more follow")


@router.get("/tokens")
async def list_tokens(api: Api, _: Admin, limit: Limit = 50, after: After = None) -> TokenPage:
    """List the tokens, revoked and expired ones too, the oldest first."""
    tokens = await api.tokens.all()
    places = {token.token_id: place for place, token in enumerate(tokens, 1)}
    if after is not None and after not in places:
        raise Problem("invalid-arguments", "query.after: should be `next` of an earlier answer")
    start = places[after] if after is not None else 0
    shown = tokens[start : start + limit]
    more = start + limit < len(tokens)
    return TokenPage(
        tokens=[told(types.Token, token) for token in shown],
        next=shown[-1].token_id if more else None,
    )


@router.post("/tokens", status_code=201, responses=may("not-found"))
async def create_token(api: Api, holder: Admin, wish: CreateToken) -> types.NewToken:
    """Make a token; the answer is the only one that has its secret.

    A token never grants more than the one that it is made with, nor for longer.
    """
    return await do(api, holder, "tokens.create", wish.model_dump(mode="json"))


@router.delete("/tokens/{token_id}", status_code=204, responses=may("not-found"))
async def revoke_token(api: Api, holder: Admin, token_id: TokenId) -> None:
    """Revoke a token: it is refused at once."""
    await do(api, holder, "tokens.revoke", {"token_id": token_id})
    await api.logins.end_of(token_id)

"""The bridge's own tokens: who has them, new ones, and their end."""

from typing import Annotated, Any

from fastapi import Path
from pydantic import ConfigDict, Field

from letta_matrix.api.calling import do
from letta_matrix.api.problems import Problem, may
from letta_matrix.api.routing import After, Answer, Limit, router_for
from letta_matrix.api.security import Admin, Api
from letta_matrix.operations.tokens import CreateToken

router = router_for("tokens")

_EXAMPLE: dict[str, Any] = {
    "token_id": "a1b2c3d4e5f6",
    "label": "nightly report",
    "agent_id": "",
    "scopes": ["read", "write"],
    "rooms": ["!abc:example.org"],
    "created_at": 1790000000.0,
    "expires_at": 1797776000.0,
    "revoked_at": None,
}

TokenId = Annotated[str, Path(max_length=100, examples=["a1b2c3d4e5f6"])]


class TokenInfo(Answer):
    """A token, without its secret. Times are Unix times in seconds."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    token_id: str
    label: str
    agent_id: str = Field(description="as whom it acts; empty: the bot")
    scopes: list[str]
    rooms: list[str] | None = Field(description="the only rooms it is for; null: all")
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class NewToken(TokenInfo):
    """A token with its secret, which is told this once."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"token": "lm_...", **_EXAMPLE}]})

    token: str = Field(description="what belongs in the Authorization header")


class TokenPage(Answer):
    tokens: list[TokenInfo]
    next: str | None = Field(description="`after` of the next request; null: no more follow")


class TokenWish(CreateToken):
    """What a new token is to be."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "label": "nightly report",
                    "scopes": ["read", "write"],
                    "rooms": ["!abc:example.org"],
                    "expires_in": 7776000,
                }
            ]
        }
    )


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
        tokens=[TokenInfo(**token.told()) for token in shown],
        next=shown[-1].token_id if more else None,
    )


@router.post("/tokens", status_code=201, responses=may("not-found"))
async def create_token(api: Api, holder: Admin, wish: TokenWish) -> NewToken:
    """Make a token; the answer is the only one that has its secret.

    A token never grants more than the one that it is made with, nor for longer.
    """
    return NewToken(**await do(api, holder, "tokens.create", wish.model_dump(mode="json")))


@router.delete("/tokens/{token_id}", status_code=204, responses=may("not-found"))
async def revoke_token(api: Api, holder: Admin, token_id: TokenId) -> None:
    """Revoke a token: it is refused at once."""
    await do(api, holder, "tokens.revoke", {"token_id": token_id})
    await api.logins.end_of(token_id)

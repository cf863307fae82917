"""The bridge's own tokens: who has them, new ones, and their end."""

import time
from typing import Annotated, Any, Self

import structlog
from fastapi import Path
from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from letta_matrix.access.grants import (
    LONGEST_LABEL,
    ROOM_ID,
    USUAL_LIFETIME,
    label_of,
    rooms_for,
    scopes_for,
)
from letta_matrix.access.secrets import issue
from letta_matrix.api.changes import change
from letta_matrix.api.problems import Problem, may
from letta_matrix.api.routing import After, Answer, Body, Limit, router_for
from letta_matrix.api.security import Admin, Api
from letta_matrix.api.services import Services
from letta_matrix.store.agents import AgentStatus
from letta_matrix.toolbox.principal import Principal, Scope
from letta_matrix.toolbox.tool import Result

log = structlog.get_logger()

router = router_for("tokens")

_LONGEST = 10 * 365 * 86_400.0
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

RoomId = Annotated[str, StringConstraints(pattern=f"^{ROOM_ID}$")]
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


class TokenWish(Body):
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

    label: Annotated[str, Field(max_length=LONGEST_LABEL), AfterValidator(label_of)] = ""
    agent_id: str = Field("", max_length=200, description="as whom it acts; empty: the bot")
    scopes: list[Scope] = Field(min_length=1, max_length=5)
    rooms: list[RoomId] | None = Field(
        None, min_length=1, max_length=1_000, description="the only rooms it is for; null: all"
    )
    expires_in: float | None = Field(
        USUAL_LIFETIME, gt=0, le=_LONGEST, description="seconds; null: it does not expire"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        rooms_for(self.rooms, scopes_for(self.scopes, self.agent_id))
        return self


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
    _check(api, holder, wish)
    secret, token = issue(
        agent_id=wish.agent_id,
        scopes=frozenset(wish.scopes),
        rooms=None if wish.rooms is None else frozenset(wish.rooms),
        label=wish.label,
        lifetime=await _lifetime(api, holder, wish),
    )

    async def add(_: bool) -> Result:
        await api.tokens.add(token)
        return {}

    await change(api, holder, "tokens.create", wish.model_dump(mode="json"), "", add)
    log.info("a token was made", by=holder.key, token=token.token_id)
    return NewToken(token=secret, **token.told())


@router.delete("/tokens/{token_id}", status_code=204, responses=may("not-found"))
async def revoke_token(api: Api, holder: Admin, token_id: TokenId) -> None:
    """Revoke a token: it is refused at once."""
    if not _is_id(token_id) or await api.tokens.get(token_id) is None:
        raise Problem("not-found", "There is no such token.")

    async def revoke(_: bool) -> Result:
        await api.tokens.revoke(token_id, time.time())
        return {}

    await change(api, holder, "tokens.revoke", {"token_id": token_id}, "", revoke)
    await api.logins.end_of(token_id)
    log.info("a token was revoked", by=holder.key, token=token_id)


def _check(api: Services, holder: Principal, wish: TokenWish) -> None:
    """Raises Problem for a token of nobody's, or one that would be more than its maker's."""
    agent = api.directory.get(wish.agent_id)
    if wish.agent_id and (agent is None or agent.status is not AgentStatus.ACTIVE):
        raise Problem("not-found", "There is no agent with this `agent_id`.")
    missing = set(wish.scopes) - holder.scopes
    if missing:
        raise Problem("forbidden", f"Your own token has no scope {', '.join(sorted(missing))}.")
    if holder.agent_id and holder.agent_id != wish.agent_id:
        raise Problem("forbidden", "Your own token acts as another agent.")
    if holder.rooms is not None and not (wish.rooms and set(wish.rooms) <= holder.rooms):
        raise Problem("forbidden", "Your own token is not for all of these rooms.")


async def _lifetime(api: Services, holder: Principal, wish: TokenWish) -> float | None:
    """Seconds that the token is to be accepted: no longer than the one it is made with."""
    kind, _, token_id = holder.key.partition(":")
    maker = await api.tokens.get(token_id) if kind == "token" else None
    if maker is None or maker.expires_at is None:
        return wish.expires_in
    left = maker.expires_at - time.time()
    return left if wish.expires_in is None else min(wish.expires_in, left)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isalnum()

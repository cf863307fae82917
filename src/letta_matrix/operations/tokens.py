"""The bridge's own tokens: making and revoking them."""

import time
from typing import Annotated, Any, Self

import structlog
from pydantic import AfterValidator, Field, StringConstraints, model_validator
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.grants import (
    LONGEST_LABEL,
    ROOM_ID,
    USUAL_LIFETIME,
    label_of,
    rooms_for,
    scopes_for,
)
from letta_matrix.access.principal import Principal, Scope
from letta_matrix.access.secrets import issue
from letta_matrix.common.parts import part
from letta_matrix.operations.operation import operation
from letta_matrix.operations.pages import After, Limit, page_of
from letta_matrix.operations.toolbox.tool import Caller, Params, Result
from letta_matrix.operations.types import NewToken, told
from letta_matrix.operations.types import Token as TokenTold
from letta_matrix.store.agents import AgentDirectory, AgentStatus
from letta_matrix.store.tokens import TokenStore

log = structlog.get_logger()

_LONGEST = 10 * 365 * 86_400.0

RoomId = Annotated[str, StringConstraints(pattern=f"^{ROOM_ID}$")]


class CreateToken(Params):
    """What a new token is to be. A call that comes again makes another one: its secret is told
    once, and kept nowhere."""

    label: Annotated[str, Field(max_length=LONGEST_LABEL), AfterValidator(label_of)] = ""
    agent_id: str = Field("", max_length=200, description="as whom it acts; empty: the bot")
    scopes: list[Scope] = Field(min_length=1, max_length=len(Scope))
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


class RevokeToken(Params):
    token_id: str = Field(max_length=100)


class ListedTokens(Params):
    limit: Limit = 50
    after: After = None


class TokenPage(TypedDict):
    tokens: list[TokenTold]
    next: Annotated[
        str | None, Field(description="`after` of the next request; null: no more follow")
    ]


@part
class TokenOperations:
    """Tells of tokens, makes and revokes them. A token never grants more than the one that it is
    made with, nor for longer."""

    _directory: AgentDirectory
    _tokens: TokenStore

    @operation("tokens.list", Scope.ADMIN, TokenPage, rest="GET /tokens")
    async def list_tokens(self, _: Caller, params: ListedTokens) -> Result:
        """List the tokens, revoked and expired ones too, the oldest first."""
        tokens, after = await self._tokens.all(), params.after
        places = {token.token_id: place for place, token in enumerate(tokens, 1)}
        if after is not None and after not in places:
            raise ToolError("query.after: should be `next` of an earlier answer")
        behind = tokens[places[after] :] if after is not None else tokens
        shown, more = page_of(behind, params.limit, lambda token: token.token_id)
        return {"tokens": [told(TokenTold, one) for one in shown], "next": more}

    @operation("tokens.create", Scope.ADMIN, NewToken, rest="POST /tokens", status=201)
    async def create_token(self, caller: Caller, params: CreateToken) -> Result:
        """Make a token; the answer is the only one that has its secret.

        A token never grants more than the one that it is made with, nor for longer.
        """
        holder = caller.principal
        self._check(holder, params)
        secret, token = issue(
            agent_id=params.agent_id,
            scopes=frozenset(params.scopes),
            rooms=None if params.rooms is None else frozenset(params.rooms),
            label=params.label,
            lifetime=await self._lifetime(holder, params),
        )
        await self._tokens.add(token)
        log.info("a token was made", by=holder.key, token=token.token_id)
        return {"token": secret, **token.told()}

    @operation("tokens.revoke", Scope.ADMIN, dict[str, Any])
    async def revoke(self, caller: Caller, params: RevokeToken) -> Result:
        """Refuse a token from now on."""
        token_id = params.token_id
        is_id = token_id.isascii() and token_id.isalnum()
        if not is_id or await self._tokens.get(token_id) is None:
            raise ToolError("There is no such token.", Fault.NOT_FOUND)
        await self._tokens.revoke(token_id, time.time())
        log.info("a token was revoked", by=caller.principal.key, token=token_id)
        return {}

    def _check(self, holder: Principal, wish: CreateToken) -> None:
        """Raises ToolError for a token of nobody's, or one that would be more than its maker's."""
        agent = self._directory.get(wish.agent_id)
        if wish.agent_id and (agent is None or agent.status is not AgentStatus.ACTIVE):
            raise ToolError("There is no agent with this `agent_id`.", Fault.NOT_FOUND)
        missing = set(wish.scopes) - holder.scopes
        if missing:
            text = f"Your own token has no scope {', '.join(sorted(missing))}."
        elif holder.agent_id and holder.agent_id != wish.agent_id:
            text = "Your own token acts as another agent."
        elif holder.rooms is not None and not (wish.rooms and set(wish.rooms) <= holder.rooms):
            text = "Your own token is not for all of these rooms."
        else:
            return
        raise ToolError(text, Fault.FORBIDDEN)

    async def _lifetime(self, holder: Principal, wish: CreateToken) -> float | None:
        """Seconds that the token is to be accepted: no longer than the one it is made with."""
        kind, _, token_id = holder.key.partition(":")
        maker = await self._tokens.get(token_id) if kind == "token" else None
        if maker is None or maker.expires_at is None:
            return wish.expires_in
        left = maker.expires_at - time.time()
        return left if wish.expires_in is None else min(wish.expires_in, left)

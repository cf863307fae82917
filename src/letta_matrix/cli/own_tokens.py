"""The bridge's own tokens, made, found and revoked in its database beside a running bridge."""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager

from mautrix.errors import MatrixRequestError

from letta_matrix.access.grants import label_of, lifetime_of, rooms_for, scopes_for
from letta_matrix.access.route import homeserver_of
from letta_matrix.access.secrets import issue
from letta_matrix.cli.database import called, open_existing
from letta_matrix.cli.faults import BadInput, Failure
from letta_matrix.common.program import typed
from letta_matrix.config import Config
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.audit import AuditEntry, AuditStore, fingerprint
from letta_matrix.store.database import HEAD, Database
from letta_matrix.store.tokens import AccessToken, TokenStore

_SHORTEST_PREFIX = 4
_HOMESERVER_TIMEOUT = 10.0


async def make(
    config: Config,
    acts_as: str,
    scopes: Collection[str] | None,
    rooms: Collection[str] | None,
    expires: str,
    label: str,
) -> tuple[str, AccessToken]:
    """A new token's text, and what is stored of it. Raises BadGrant, BadInput, Failure."""
    async with _open(config) as database:
        directory = await AgentDirectory(database).load()
        is_bot = acts_as in ("", config.bot_user_id)
        agent_id = "" if is_bot else called(acts_as, directory.all()).agent_id
        granted = scopes_for(scopes, agent_id)
        ids = None if rooms is None else await _room_ids(config, rooms)
        text, token = issue(
            agent_id=agent_id,
            scopes=granted,
            rooms=rooms_for(ids, granted),
            label=label_of(label),
            lifetime=lifetime_of(expires),
        )
        await TokenStore(database).add(token)
        await _note(config, database, "tokens.create", token.told())
    return text, token


async def known(config: Config) -> list[AccessToken]:
    """All of them. Raises Failure."""
    async with _open(config) as database:
        return await TokenStore(database).all()


async def revoke(config: Config, given: str) -> str:
    """What happened, in a line. Raises BadInput, Failure."""
    async with _open(config) as database:
        store = TokenStore(database)
        token_id = _meant(given, await store.all()).token_id
        changed = await store.revoke(token_id, time.time())
        await _note(config, database, "tokens.revoke", {"token_id": token_id})
    return f"{token_id} " + ("is revoked" if changed else "was revoked before")


def fields(token: AccessToken) -> dict[str, object]:
    """A token as JSON."""
    return {**token.told(), "state": _state(token)}


def described(token: AccessToken, config: Config) -> str:
    """A token for people, in lines."""
    rooms = "all" if token.rooms is None else ", ".join(token.rooms)
    lines = [
        f"{token.token_id}  ({_state(token)})" + (f"  {token.label}" if token.label else ""),
        f"  acts as  {token.agent_id or config.bot_user_id}",
        f"  scopes   {', '.join(token.scopes)}",
        f"  rooms    {rooms}",
        f"  made     {_when(token.created_at)}",
        f"  expires  {_when(token.expires_at) or 'never'}",
    ]
    return "\n".join(lines)


def _state(token: AccessToken) -> str:
    if token.revoked_at is not None:
        return "revoked"
    expired = token.expires_at is not None and token.expires_at <= time.time()
    return "expired" if expired else "active"


def _when(moment: float | None) -> str:
    """A Unix time in UTC (RFC 3339), "" for none."""
    return "" if moment is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


async def noted(config: Config, action: str, arguments: Mapping[str, object]) -> None:
    """Say in the audit log what was done by another command. Raises Failure."""
    async with _open(config) as database:
        await _note(config, database, action, arguments)


async def _note(
    config: Config, database: Database, action: str, arguments: Mapping[str, object]
) -> None:
    """Say in the audit log what was done, as the bridge does of what comes through its doors."""
    call, now = fingerprint(arguments), time.time()
    entry = AuditEntry("cli", config.bot_user_id, "cli", action, call, now, outcome="ok")
    await AuditStore(database).begin(entry)


@asynccontextmanager
async def _open(config: Config) -> AsyncGenerator[Database]:
    """The database, at the schema that we know. Raises Failure."""
    async with open_existing(config) as database:
        if (revision := await database.revision()) != HEAD:
            raise Failure(
                f"the database has schema {revision or '(none)'}, this letta-matrix needs {HEAD}: "
                "start the bridge of this version once"
            )
        yield database


async def _room_ids(config: Config, refs: Collection[str]) -> list[str]:
    """The ids of rooms given by id or alias. Raises BadInput, Failure."""
    wrong = next((ref for ref in refs if not ref.startswith(("!", "#"))), None)
    if wrong is not None:
        raise BadInput(f"{wrong!r}: give rooms by id (!...) or alias (#...), not by name")
    aliases = [ref for ref in refs if ref.startswith("#")]
    found = await _resolved(config, aliases) if aliases else {}
    missing = next((alias for alias, room_id in found.items() if room_id is None), None)
    if missing is not None:
        raise BadInput(f"there is no room {missing}")
    return [found.get(ref) or ref for ref in refs]


async def _resolved(config: Config, aliases: Collection[str]) -> dict[str, str | None]:
    homeserver = homeserver_of(config)
    bot = homeserver.acting_as(config.bot_user_id)
    try:
        async with asyncio.timeout(_HOMESERVER_TIMEOUT):
            return {alias: await bot.resolve_alias(alias) for alias in aliases}
    except (TimeoutError, HomeserverUnavailable):
        raise Failure(
            f"{config.homeserver.url} finds no answer for {' '.join(aliases)}: is it the right "
            f"server name ({config.homeserver.domain} is ours)? Ids of rooms (!...) do as well"
        ) from None
    except MatrixRequestError as error:
        raise BadInput(f"an alias cannot be looked up: {refusal(error)}") from None
    finally:
        await homeserver.close()


def _meant(given: str, tokens: Collection[AccessToken]) -> AccessToken:
    """The token with that id, or whose id or text begins so. Raises BadInput."""
    # Of a whole token the secret does not matter, and is not repeated in an error.
    start = given.removeprefix("lm_").partition("_")[0]
    found = [token for token in tokens if token.token_id.startswith(start)]
    if len(start) < _SHORTEST_PREFIX or not found:
        listing = typed(["tokens", "list"])
        raise BadInput(f"there is no token {start!r}; `{listing}` shows their ids")
    if len(found) > 1:
        ids = ", ".join(token.token_id for token in found)
        raise BadInput(f"several tokens begin with {start!r}: {ids}")
    return found[0]

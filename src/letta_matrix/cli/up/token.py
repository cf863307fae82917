"""The embedded stack's own token for the REST API and the MCP server."""

import time
from pathlib import Path

from letta_matrix.access.principal import Scope
from letta_matrix.access.secrets import is_secret_of, issue, token_id_of
from letta_matrix.cli.up.bridge_store import database_of
from letta_matrix.common.private_files import write_private
from letta_matrix.config import Config
from letta_matrix.store.tokens import TokenStore


async def keep_token(path: Path, config: Config) -> str:
    """The token kept in `path`, which acts as the bot and may do everything. The first time, and
    when it is not accepted any more, a new one is made and stored there (0600).

    The bridge may have its database open meanwhile. Raises StackError.
    """
    async with database_of(config, "no token can be made") as database:
        store = TokenStore(database)
        kept = _read(path)
        return kept if await _is_accepted(kept, store) else await _new(path, store)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


async def _is_accepted(text: str, store: TokenStore) -> bool:
    token_id = token_id_of(text)
    token = None if token_id is None else await store.get(token_id)
    if token is None or not is_secret_of(text, token) or token.revoked_at is not None:
        return False
    return token.expires_at is None or token.expires_at > time.time()


async def _new(path: Path, store: TokenStore) -> str:
    text, token = issue(agent_id="", scopes=frozenset(Scope), label="letta-matrix up")
    # The file first: a token that nobody has would stay for ever.
    write_private(path, text + "\n")
    await store.add(token)
    return text

"""How keeper and bridge know each other.

On one machine both can read the file that lies beside the socket. What an agent runs can connect
to the socket, as Landlock restricts no connections, but not read that file. Over TCP both know a
token, and neither sends it: who takes the port while the keeper is away learns nothing.
"""

import hmac
import os
import secrets
from pathlib import Path

from letta_matrix.common.private_files import make_private

_BYTES = 24
_MAKE = "make one by `umask 077; openssl rand -hex 32 > FILE`"


def secret_at(socket: Path) -> str:
    """The secret of a keeper's socket, made the first time, by whichever of the two comes first.

    Raises:
        OSError: it cannot be read or written, or others can.
    """
    path = socket.with_name(socket.name + ".key")
    if not path.exists():
        # The other one may be making it, or reading it, at the same time.
        make_private(path, secrets.token_urlsafe(_BYTES))
    return _private(path, "remove it")


def token_in(path: Path, least: int = _BYTES) -> str:
    """The token that a file holds, of `least` characters.

    Raises:
        OSError: it cannot be read, others can read it, or it holds none.
    """
    return _private(path, _MAKE, least)


def checked(token: str, origin: str, remedy: str = _MAKE, least: int = _BYTES) -> str:
    """A token from elsewhere. Raises OSError for one that could be guessed."""
    if len(token) < least:
        raise OSError(f"{origin} holds no secret of {least} characters or more: {remedy}")
    return token


def nonce() -> str:
    """What makes a proof count for one connection alone."""
    return secrets.token_hex(_BYTES)


def proof(token: str, who: str, *nonces: str) -> str:
    """What shows that `who` (`bridge` or `keeper`) knows the token, on the connection on which the
    keeper and the bridge gave these `nonces`."""
    said = "\n".join((who, *nonces))
    return hmac.new(token.encode(), said.encode(), "sha256").hexdigest()


def same(one: object, other: str) -> bool:
    """Whether two secrets are the same; how long that takes tells nothing of them."""
    return hmac.compare_digest(str(one).encode(), other.encode())


def _private(path: Path, remedy: str, least: int = _BYTES) -> str:
    status = path.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise OSError(f"{path} is not for its owner alone, or somebody else's: {remedy}")
    try:
        secret = path.read_text(encoding="ascii").strip()
    except UnicodeDecodeError:
        secret = ""
    return checked(secret, str(path), remedy, least)

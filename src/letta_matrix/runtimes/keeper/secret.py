"""How a keeper knows its bridge: both can read the file that lies beside the socket. What an agent
runs can connect to the socket, as Landlock restricts no connections, but not read that file."""

import os
import secrets
from pathlib import Path

from letta_matrix.common.private_files import make_private

_BYTES = 24


def secret_at(socket: Path) -> str:
    """The secret of a keeper's socket, made the first time, by whichever of the two comes first.

    Raises:
        OSError: it cannot be read or written, or others can.
    """
    path = socket.with_name(socket.name + ".key")
    if not path.exists():
        # The other one may be making it, or reading it, at the same time.
        make_private(path, secrets.token_urlsafe(_BYTES))
    status = path.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise OSError(f"{path} is not for its owner alone, or somebody else's: remove it")
    secret = path.read_text(encoding="ascii")
    if len(secret) < _BYTES:
        raise OSError(f"{path} holds no secret: remove it")
    return secret

"""Names of sessions that tell whose they are, so that a restarted bridge knows its own again."""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode

_NONCE = 16
_SEAL = 18
_PURPOSE = b"letta-matrix MCP session\0"


class SessionIds:
    """Makes names of sessions, and knows those it made, also in an earlier process with the same
    `secret`. They are `NONCE.SEAL`, in visible ASCII (MCP specification, basic/transports)."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(_PURPOSE + secret.encode()).digest()

    def make(self, owner: str) -> str:
        """The name of a new session of somebody."""
        nonce = secrets.token_urlsafe(_NONCE)
        return f"{nonce}.{self._seal(nonce, owner)}"

    def is_of(self, session_id: str, owner: str) -> bool:
        """Whether a name was made for somebody."""
        nonce, _, seal = session_id.partition(".")
        return hmac.compare_digest(seal.encode(), self._seal(nonce, owner).encode())

    def _seal(self, nonce: str, owner: str) -> str:
        made = hmac.digest(self._key, f"{nonce}\0{owner}".encode(), "sha256")
        return urlsafe_b64encode(made[:_SEAL]).decode()

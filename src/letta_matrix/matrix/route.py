"""The way to the homeserver: which process it has to be, and whose certificates count."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from letta_matrix.common.connections.known_servers import CheckedConnector, KnownServer
from letta_matrix.matrix import answers


@dataclass(frozen=True, slots=True)
class Route:
    """`known` is the server that has to be there, if that is known; `tls` trusts more than the
    system's certificates, None: those alone."""

    known: Sequence[KnownServer] = ()
    tls: ssl.SSLContext | None = None

    @property
    def process(self) -> str | None:
        """Which process it leads to, "" while there is none; None where that is not known."""
        return next((one.process for one in self.known), None)

    def connector(self, **options: Any) -> CheckedConnector:
        """What makes connections that go this way."""
        return CheckedConnector(self.known, ssl=self.tls or True, **options)

    async def ask(
        self, method: str, url: str | URL, timeout: aiohttp.ClientTimeout, **options: Any
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """What is answered on a connection of its own, with its body; redirects are not followed.
        Raises aiohttp.ClientError, TimeoutError, ForeignAnswer."""
        async with (
            aiohttp.ClientSession(connector=self.connector(), timeout=timeout) as http,
            http.request(method, url, allow_redirects=False, **options) as response,
        ):
            return response, await answers.read_body(response)


def issuer_hint(error: BaseException) -> str:
    """What to do where it is not known who issued the homeserver's certificate, "" for other
    faults."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, aiohttp.ClientConnectorCertificateError):
        cause = cause.__cause__
    fault = None if cause is None else cause.certificate_error
    if not isinstance(fault, ssl.SSLCertVerificationError):
        return ""
    is_unknown = fault.verify_code in _UNKNOWN_ISSUER
    return _NAME_ISSUER if is_unknown else ""


_NAME_ISSUER = "; name a file with the certificate of who issued it as homeserver.ca_file"
_UNKNOWN_ISSUER = (18, 19, 20, 21)
"""Of OpenSSL (verify(1), X509_V_ERR_...): self-signed, alone or in the chain; no issuer found;
the first certificate cannot be checked."""

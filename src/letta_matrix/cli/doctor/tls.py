"""Certificates of servers, as whoever connects to them sees them."""

import asyncio
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from cryptography import x509

from letta_matrix.cli.doctor.finding import Finding, fine, trouble, warning

_SOON = 14
"""Days: whoever renews certificates by itself has done so by then."""
_PATIENCE = 5.0
_HTTPS = 443


@dataclass(frozen=True, slots=True)
class Seen:
    """A server's certificate: until when it is good, and what TLS says against it, "" for
    nothing."""

    begins: datetime
    ends: datetime
    fault: str = ""


async def speaks_tls(host: str, port: int) -> bool:
    """Whether the server there takes TLS."""
    try:
        await _connected(host, port, _trusting())
    except (OSError, TimeoutError):
        return False
    return True


async def certificate_at(host: str, port: int, trusted: ssl.SSLContext | None) -> Seen:
    """The certificate of the server there; `trusted` says whose count, None: the system's.
    Raises OSError (also ssl.SSLError) and TimeoutError where none is to be had."""
    der = await _connected(host, port, _trusting())
    certificate = x509.load_der_x509_certificate(der)
    fault = ""
    try:
        await _connected(host, port, trusted or ssl.create_default_context())
    except ssl.SSLCertVerificationError as error:
        fault = error.verify_message
    return Seen(certificate.not_valid_before_utc, certificate.not_valid_after_utc, fault)


def judge(url: str, seen: Seen, now: datetime, own_authority: str = "") -> Finding:
    """What a certificate of the server at `url` means; `own_authority` is the setting that
    lets another authority count."""
    day = f"{seen.ends:%Y-%m-%d}"
    renew = (
        "renew it (`certbot renew`, or what else makes them for you), and let the server read it"
    )
    if now > seen.ends:
        return trouble(f"the certificate of {url} has expired on {day}", renew)
    if now < seen.begins:
        return trouble(
            f"the certificate of {url} is good from {seen.begins:%Y-%m-%d} on, which is later than "
            "this machine's clock says it is",
            "set the clock (timedatectl set-ntp true)",
        )
    if seen.fault:
        cure = f", or name a file with who issued it as {own_authority}" if own_authority else ""
        return trouble(
            f"the certificate of {url} is not accepted: {seen.fault}",
            f"let the server have one for that name, by an authority that this machine knows{cure}",
        )
    if (left := (seen.ends - now).days) < _SOON:
        when = f"in {left} days" if left > 1 else "within two days"
        return warning(
            f"the certificate of {url} expires {when}, on {day}",
            renew,
            shows="from that day on nothing works",
        )
    return fine(f"the certificate of {url} is good until {day}")


async def judged(url: str, trusted: ssl.SSLContext | None, own_authority: str) -> Finding:
    """The same of who is there now."""
    parts = urlsplit(url)
    try:
        seen = await certificate_at(parts.hostname or "", parts.port or _HTTPS, trusted)
    except ssl.SSLError as error:
        return trouble(
            f"no TLS comes about with {url}: {error.reason or 'it speaks none'}",
            "see whether the port is that for https",
        )
    except (OSError, TimeoutError, ValueError) as error:
        # Whether it can be reached is another question, and perhaps only from elsewhere.
        return fine(f"the certificate of {url} is not to be seen here: {error or 'no answer'}")
    return judge(url, seen, datetime.now(UTC), own_authority)


def _trusting() -> ssl.SSLContext:
    """Takes any certificate: it is to be looked at, and nothing is sent."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _connected(host: str, port: int, context: ssl.SSLContext) -> bytes:
    """Connects, and lets go; the certificate (DER)."""
    async with asyncio.timeout(_PATIENCE):
        _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    try:
        transport = writer.get_extra_info("ssl_object")
        return transport.getpeercert(binary_form=True) or b""
    finally:
        writer.close()

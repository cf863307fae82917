"""A certificate of our own for a first start, until there is a real one."""

import ipaddress
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LIFETIME = timedelta(days=397)
"""What browsers accept at most."""


_SOON = timedelta(days=30)


def self_signed(host: str, *others: str) -> tuple[str, str]:
    """A certificate for `host` and other names, and its key, both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
        .add_extension(
            x509.SubjectAlternativeName([_name(one) for one in dict.fromkeys((host, *others))]),
            critical=False,
        )
        # Whoever trusts it trusts it alone.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return built.public_bytes(serialization.Encoding.PEM).decode(), secret.decode()


def ends_soon(certificate: str) -> bool:
    """Whether a certificate (PEM) ends within a month."""
    ends = x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc
    return ends - datetime.now(UTC) < _SOON


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)

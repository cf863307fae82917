"""What OAuth clients are told of a door: its metadata (RFC 9728), and what a refusal says."""

from urllib.parse import urlsplit

from letta_matrix.access.authenticator import Unauthorized
from letta_matrix.access.principal import TOOL_SCOPES, Scope
from letta_matrix.config import Config

WELL_KNOWN = "/.well-known/oauth-protected-resource"
"""Where a resource's metadata is, in front of the resource's own path (RFC 9728 section 3.1)."""


def resource_url(public_url: str | None, host: str, path: str) -> str:
    """A resource's URL as its client reaches it: clients compare the two (RFC 9728 section 3.3).

    `host` is the request's `Host` header, which the door's guard has let pass; `public_url` is the
    door's, without `path`.
    """
    return (public_url or f"http://{host}") + path


def metadata_url(resource: str) -> str:
    """Where the metadata of a resource is."""
    parts = urlsplit(resource)
    return f"{parts.scheme}://{parts.netloc}{WELL_KNOWN}{parts.path.rstrip('/')}"


def resource_metadata(config: Config, resource: str) -> dict[str, object]:
    """The metadata of the resource with that URL (RFC 9728 section 2).

    It names an authorization server only where there is one: tokens of our own are made by the
    operator, and no client can ask for them. `admin` is not among its scopes: clients ask for all
    that are.
    """
    document: dict[str, object] = {
        "resource": resource,
        "resource_name": "letta-matrix",
        "scopes_supported": [str(scope) for scope in Scope if scope in TOOL_SCOPES],
        "bearer_methods_supported": ["header"],
    }
    if config.access.oidc is not None:
        document["authorization_servers"] = [config.access.oidc.issuer]
    return document


def challenge(error: Unauthorized | None, metadata: str = "") -> str:
    """`WWW-Authenticate` for a 401 (RFC 6750 section 3, RFC 9728 section 5.1); `metadata` is where
    the resource's metadata is."""
    fields = {"resource_metadata": metadata}
    if error is not None and error.error:
        fields |= {"error": error.error, "error_description": str(error)}
    return _bearer(fields)


def scope_challenge(scope: Scope) -> str:
    """`WWW-Authenticate` for a 403: what the token would need (RFC 6750 section 3.1)."""
    return _bearer({"error": "insufficient_scope", "scope": str(scope)})


def _bearer(fields: dict[str, str]) -> str:
    parts = ", ".join(f'{name}="{_quotable(value)}"' for name, value in fields.items() if value)
    return f"Bearer {parts}".rstrip()


def _quotable(value: str) -> str:
    """Only what RFC 6750 allows in such a value: printable ASCII, but no `"` and no backslash."""
    return "".join(sign for sign in value if " " <= sign <= "~" and sign not in '"\\')

"""Settings of the doors for programs: who may come in, how often, and where."""

import ipaddress
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidatorFunctionWrapHandler, WrapValidator

from letta_matrix.common.loopback import is_loopback
from letta_matrix.config.types import (
    Duration,
    HomeserverAddress,
    HttpAddress,
    ListenHost,
    Number,
    Section,
    Whole,
    matches,
)

_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"


def _over_tls(value: object, check: ValidatorFunctionWrapHandler) -> str:
    parts = urlsplit(str(check(value)))
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        # Who can change what is read there can sign any token (RFC 8414 section 6.1).
        raise ValueError("should start with https://, unless it is on this machine")
    # As it was written: the name of an issuer may end with a slash.
    return str(value)


Origin = Annotated[
    str,
    matches(
        rf"https?://{_HOST}(:[0-9]+)?", "an origin such as https://example.org, without a path"
    ),
]


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise ValueError("should be an address or a network such as 10.0.0.0/8") from None


Network = Annotated[str, AfterValidator(_network)]
Host = Annotated[str, matches(_HOST, "a host such as matrix.example.org, without a port")]
SecureAddress = Annotated[HttpAddress, WrapValidator(_over_tls)]
RoomId = Annotated[str, matches(r"!\S+", "a room id such as !abc:example.org")]


class Oidc(Section):
    """Accept JWTs of an OpenID Connect issuer (RFC 9068) beside tokens of our own."""

    issuer: SecureAddress = Field(
        description="as in the tokens' `iss`, and where its keys are found"
    )
    audience: Annotated[str, matches(r"\S+", "a text without spaces, usually a URL")] = Field(
        description="what the tokens' `aud` must have in it"
    )
    agent_claim: str = Field(
        default="letta_agent",
        description="the claim that names the agent a token acts as; without it: none",
    )
    admins: list[str] = Field(
        default_factory=list[str], description="subjects (`sub`) that act as the bot"
    )


class Access(Section):
    calls_per_minute: Whole = Field(default=600, ge=1, description="requests for each token")
    audit_days: Number = Field(
        default=90.0, gt=0, le=36_500, description="how long calls stay in the log"
    )
    audit_room: RoomId | None = Field(
        default=None, description="a room the bot is in, where each change is told"
    )
    oidc: Oidc | None = None


class Api(Section):
    hostname: ListenHost = "127.0.0.1"
    port: Whole = Field(default=8004, ge=1, le=65535)
    homeserver_url: HomeserverAddress | None = Field(
        default=None, description="the homeserver as browsers reach it; default: homeserver.url"
    )
    public_url: HttpAddress | None = Field(
        default=None, description="the REST API as clients reach it, such as behind a proxy"
    )
    allowed_hosts: list[Host] = Field(
        default_factory=list[str],
        description="further `Host` headers to accept, besides loopback and public_url's",
    )
    trusted_proxies: list[Network] = Field(
        default_factory=list[str],
        description="addresses of proxies whose `X-Forwarded-For` is believed",
    )
    cors_origins: list[Origin] = Field(
        default_factory=list[str], description="web pages that may call the REST API"
    )
    max_body_bytes: Whole = Field(
        default=8_000_000, ge=1_000, description="larger requests are refused"
    )


class Mcp(Section):
    enabled: bool = True
    hostname: ListenHost = "127.0.0.1"
    port: Whole = Field(default=8016, ge=1, le=65535, description="Streamable HTTP")
    websocket_port: Whole = Field(default=8015, ge=1, le=65535)
    public_url: HttpAddress | None = Field(
        default=None,
        description="the HTTP door as clients reach it, such as behind a proxy, without `/mcp`",
    )
    allowed_hosts: list[Host] = Field(
        default_factory=list[str],
        description="further `Host` headers to accept, besides loopback and public_url's",
    )
    allowed_origins: list[Origin] = Field(
        default_factory=list[str], description="web pages that may connect"
    )
    idle_timeout: Duration = Field(
        default=3600.0, gt=0, description="sessions nobody uses end then"
    )

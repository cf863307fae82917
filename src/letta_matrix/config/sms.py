"""Settings of the phone line: the section `sms`, one bridge more, to a phone's text messages."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import AfterValidator, Field, model_validator

from letta_matrix.config.portals import Line, Name, Pattern, PortalSettings
from letta_matrix.config.types import Duration, HttpAddress, Section, Token, UserId

PROTOCOLS = ("gmessages", "gmessages-sms", "gmessages-rcs")
"""`protocol.id` of mautrix-gmessages; of a portal it changes as phones agree on SMS or RCS."""


def _region(value: str) -> str:
    # It is large, and nobody else needs it.
    import phonenumbers

    if value.upper() not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError("should be a country's two letters such as DE or US (ISO 3166-1)")
    return value.upper()


Region = Annotated[str, AfterValidator(_region)]


class ProvisioningSettings(Section):
    """The bridge's own API, by which a phone is paired and talks are begun."""

    url: HttpAddress = Field(description="where the bridge listens, such as http://127.0.0.1:29336")
    secret: Token = Field(description="`provisioning.shared_secret` of the bridge's config.yaml")


class SmsSettings(PortalSettings):
    """mautrix-gmessages with a phone paired to it. What has no default here follows from the
    homeserver's name."""

    name: Name = "sms"
    bot: UserId = Field(description="the bridge's own user")
    ghosts: Pattern = Field(description="user ids of contacts, a regular expression")
    line: Line | None = Field(description="our user that the phone is paired with; null: a person")
    protocols: list[str] = Field(default=list(PROTOCOLS))
    sms: bool = True
    takeover: Duration = Field(
        default=600.0, description="agents are silent after a text typed on the phone itself"
    )
    region: Region | None = Field(
        default=None, description="country of numbers that are written without one (ISO 3166-1)"
    )
    default_agent: str | None = Field(
        default=None, description="answers whoever has no route; without it nobody does"
    )
    provisioning: ProvisioningSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_route(cls, data: Any) -> Any:
        routes = data.get("routes", {}) if isinstance(data, Mapping) else None
        if not isinstance(routes, Mapping) or not data.get("default_agent"):
            return data
        return {**data, "routes": {"*": data["default_agent"], **routes}}


def with_users(data: object) -> object:
    """A configuration whose `sms` names its users: as mautrix-gmessages calls them on the
    homeserver, where nothing else is said."""
    if not isinstance(data, Mapping):
        return data
    settings = cast("Mapping[str, object]", data)
    homeserver, sms = settings.get("homeserver"), settings.get("sms")
    if isinstance(homeserver, Mapping):
        domain = cast("Mapping[str, object]", homeserver).get("domain")
    else:
        domain = getattr(homeserver, "domain", None)
    if not isinstance(sms, Mapping) or not isinstance(domain, str):
        return settings
    users = {
        "bot": f"@gmessagesbot:{domain}",
        "ghosts": rf"@gmessages_(\d+\.\d+):{re.escape(domain)}",
        "line": f"@letta_sms:{domain}",
    }
    return {**settings, "sms": {**users, **cast("Mapping[str, object]", sms)}}

"""Settings of the phone line: the section `sms`, one bridge more, to a phone's text messages."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator
from pydantic_core.core_schema import ValidationInfo

from letta_matrix.common.json_fields import mapping
from letta_matrix.config.portals import Line, Name, Pattern, PortalSettings, apart
from letta_matrix.config.types import Duration, HttpAddress, Section, Token, UserId, Whole

RCS = "gmessages-rcs"
PROTOCOLS = ("gmessages", "gmessages-sms", RCS)
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
    image_bytes: Whole = Field(
        default=600_000,
        ge=50_000,
        le=5_000_000,
        description="of one picture (MMS): carriers refuse larger ones",
    )
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
    def _default_route(cls, data: object) -> object:
        settings, agent = mapping(data), mapping(data).get("default_agent")
        routes: object = settings.get("routes", {})
        if not agent or routes != (known := mapping(routes)):
            return data
        return {**settings, "routes": {"*": agent, **known}}


def with_users(data: object) -> object:
    """A configuration whose `sms` names its users: as mautrix-gmessages calls them on the
    homeserver, where nothing else is said."""
    settings = mapping(data)
    domain = mapping(settings.get("homeserver")).get("domain")
    sms: object = settings.get("sms")
    if not isinstance(domain, str) or sms != (known := mapping(sms)):
        return data
    users = {
        "bot": f"@gmessagesbot:{domain}",
        "ghosts": rf"@gmessages_(\d+\.\d+):{re.escape(domain)}",
        "line": f"@letta_sms:{domain}",
    }
    return {**settings, "sms": {**users, **known}}


def with_own_users(sms: SmsSettings | None, info: ValidationInfo) -> SmsSettings | None:
    """The same; users that are those of a bridge in `portals` too are a fault."""
    apart([*info.data.get("portals", ()), *([sms] if sms is not None else ())])
    return sms

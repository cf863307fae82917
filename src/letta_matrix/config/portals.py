"""Settings of bridges to other networks: the section `portals`."""

import re
import warnings
from datetime import time
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field

from letta_matrix.config.types import Duration, Section, UserId, Whole, matches


def _pattern(value: str) -> str:
    try:
        with warnings.catch_warnings():
            # A later Python reads it as something else.
            warnings.simplefilter("error", FutureWarning)
            re.compile(value)
    except (re.error, FutureWarning) as error:
        raise ValueError(f"should be a regular expression: {error}") from None
    except (RecursionError, OverflowError):
        raise ValueError("should be a regular expression, and a simpler one") from None
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (OSError, ValueError, LookupError):
        # Also the names of folders among the zones.
        raise ValueError("should be a time zone such as Europe/Berlin or UTC") from None
    return value


def _time_of_day(value: object) -> time:
    # YAML 1.1 reads 22:00 without quotes as minutes since midnight.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 24 * 60:
        return time(value // 60, value % 60)
    if isinstance(value, str) and re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", value):
        hours, _, minutes = value.partition(":")
        return time(int(hours), int(minutes))
    if isinstance(value, time):
        return value
    raise ValueError("should be a time of day such as 22:00")


Line = Annotated[UserId, matches(r"@letta_[^:]+:.*", "a user id that begins with @letta_")]
Name = Annotated[str, matches(r"[a-z0-9_-]{1,32}", "small letters, digits, `_` and `-`")]
Pattern = Annotated[str, AfterValidator(_pattern)]
TimeOfDay = Annotated[time, BeforeValidator(_time_of_day)]
Zone = Annotated[str, AfterValidator(_zone)]


class QuietHours(Section):
    """From `start` to `end`, over midnight if that is earlier."""

    start: TimeOfDay
    end: TimeOfDay
    zone: Zone = "UTC"


class PortalSettings(Section):
    """One bridge to another network."""

    name: Name
    bot: UserId = Field(description="the bridge's own user")
    ghosts: Pattern = Field(
        description="user ids of the network's people, a regular expression; its first group is "
        "their id on the network"
    )
    protocols: list[str] = Field(
        default_factory=list[str],
        description="`protocol.id` of its portals (`m.bridge`); without any: all of its bot's",
    )
    proof: Literal["bridge_state", "creator"] = Field(
        default="bridge_state",
        description="what makes a room a portal: `m.bridge` sent by the bot, or, for bridges that "
        "send none, that the bot made the room",
    )
    line: Line | None = Field(
        default=None, description="our user that is logged in to the bridge and speaks for agents"
    )
    self_ghosts: list[str] = Field(
        default_factory=list[str], description="ghosts, or their ids, that are the line itself"
    )
    identifier: Pattern | None = Field(
        default=None,
        description="the part of a ghost's display name that identifies it, its first group; only "
        "where the bridge makes those names",
    )
    routes: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="contact (a ghost's id, its id on the network, an identifier, a prefix that "
        "ends in `*`) or channel to agent",
    )
    groups: bool = Field(default=False, description="agents answer in groups, when addressed")
    sms: bool = Field(default=False, description="count segments (GSM 03.38) and split by them")
    segments: Whole = Field(default=3, ge=1, le=10, description="of one text message")
    part_bytes: Whole = Field(
        default=1_500, ge=160, le=16_000, description="of one message, without `sms`"
    )
    image_bytes: Whole = Field(
        default=5_000_000,
        ge=50_000,
        le=5_000_000,
        description="of one picture that an agent sends; larger ones are made smaller",
    )
    join_messages: Duration = Field(
        default=2.0, description="what a contact sends within this time is one question"
    )
    contact_per_day: Whole = Field(
        default=100, ge=0, description="messages of one contact that are asked in a day; 0: all"
    )
    per_day: Whole = Field(default=1_000, ge=0, description="the same of all contacts together")
    quiet_hours: QuietHours | None = None
    takeover: Duration = Field(
        default=0.0, description="agents are silent after a person has written; 0: they are not"
    )


def apart(portals: list[PortalSettings]) -> list[PortalSettings]:
    """Bridges that have nothing in common. Raises ValueError."""
    for key in ("name", "bot", "line"):
        values = [value for one in portals if (value := getattr(one, key)) is not None]
        if twice := {value for value in values if values.count(value) > 1}:
            raise ValueError(f"should each have a `{key}` of its own; taken twice: {min(twice)}")
    return portals


Portals = Annotated[list[PortalSettings], AfterValidator(apart)]

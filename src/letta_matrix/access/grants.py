"""What a new token may be given."""

import re
from collections.abc import Collection

from letta_matrix.access.principal import TOOL_SCOPES, Scope
from letta_matrix.common.durations import seconds_in

_LONGEST_LIFETIME = 999_999 * 86_400.0
_UNITS = ("m", "h", "d", "w")

USUAL_LIFETIME = 90 * 86_400.0
"""Seconds that a token is accepted if nothing else is asked for."""

LONGEST_LABEL = 200

ROOM_ID = r"![!-~]{1,254}"
"""What the id of a room looks like. Those of newer versions name no server (MSC4291)."""


class BadGrant(ValueError):
    """A token cannot be made so; one line that says how."""


def scopes_for(asked: Collection[str] | None, agent_id: str) -> frozenset[Scope]:
    """The scopes of a token that acts as an agent ("": as the bot); None: all that tools need.

    `admin` and `metrics` are given only when named, and never to a token of an agent: with the
    first it could make itself tokens for all the others. Raises BadGrant.
    """
    if asked is None:
        return TOOL_SCOPES
    known = [str(scope) for scope in Scope]
    unknown = [scope for scope in asked if scope not in known]
    if unknown:
        raise BadGrant(f"there is no scope {_shown(unknown[0])}; there are {', '.join(known)}")
    if not asked:
        raise BadGrant(f"a token needs a scope: {', '.join(known)}")
    scopes = frozenset(Scope(scope) for scope in asked)
    if agent_id and (others := sorted(scopes - TOOL_SCOPES)):
        raise BadGrant(f"the scope {others[0]} is only for tokens of the bot, not for an agent's")
    return scopes


def lifetime_of(text: str) -> float | None:
    """Seconds in a text such as `90d`, None for `never`. Raises BadGrant."""
    if text == "never":
        return None
    # A number alone may be meant as days.
    seconds = seconds_in(text) if text.endswith(_UNITS) else None
    if seconds is None or not 0 < seconds <= _LONGEST_LIFETIME:
        raise BadGrant(f"{_shown(text)} is no time; write 30m, 12h, 90d, 8w or never")
    return seconds


def rooms_for(asked: Collection[str] | None, scopes: Collection[Scope]) -> frozenset[str] | None:
    """The only rooms, by id, that a token is for; None: no limit. Raises BadGrant."""
    if asked is None:
        return None
    if Scope.ADMIN in scopes:
        raise BadGrant("a token with the scope admin cannot be limited to rooms: admins see all")
    wrong = next((room for room in asked if re.fullmatch(ROOM_ID, room) is None), None)
    if wrong is not None or not asked:
        raise BadGrant(f"{_shown(wrong or '')} is no room id; one looks like !abc:example.org")
    return frozenset(asked)


def label_of(text: str) -> str:
    """A label as it may be stored. Raises BadGrant."""
    if len(text) > LONGEST_LABEL or not text.isprintable():
        raise BadGrant(
            f"a label is one line of at most {LONGEST_LABEL} characters, nothing invisible in it"
        )
    return text.strip()


def _shown(text: str) -> str:
    return ascii(text[:60])

"""Tools that tell what a room is: its names and rules, and any of its state."""

import asyncio
import json
from collections.abc import Mapping
from typing import Annotated, Any, NotRequired

from mautrix.errors import MNotFound
from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.json_fields import mapping
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.power_levels import (
    creators,
    level,
    level_of,
    needed_for,
    needed_to_send,
)
from letta_matrix.operations.toolbox.arguments import RoomParams
from letta_matrix.operations.toolbox.naming import joined_room
from letta_matrix.operations.toolbox.results import (
    LIMIT,
    UNTRUSTED,
    OfRoom,
    Untrusted,
    cut,
    filled,
    size,
)
from letta_matrix.operations.toolbox.tool import Caller, Result, tool

_TEXT = 1_000
_ID = 255
_SHOWN = 10
"""At most so many spaces, creators, and users with power."""

_LAZY = {"lazy_load_members": True}

Contents = Mapping[tuple[str, str], Mapping[str, Any]]
"""Contents of state events by type and state key."""


class GetState(RoomParams):
    event_type: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,255}$")] = Field(
        description="such as m.room.topic"
    )
    state_key: Annotated[str, StringConstraints(max_length=_ID)] = Field(
        "", description="mostly empty"
    )


class Power(TypedDict):
    """What the caller may do, and who has power: `yours` is its level; `creators` are above all
    levels. `needed` are the levels that actions need."""

    yours: int
    you_may: list[str]
    users: dict[str, int]
    creators: NotRequired[list[str]]
    needed: dict[str, int]


class RoomInfo(OfRoom, Untrusted):
    """What a room is. `replaced_by` is the room that one goes on in after an upgrade."""

    name: str
    topic: NotRequired[str]
    alias: NotRequired[str]
    avatar: NotRequired[str]
    type: NotRequired[str]
    version: str
    encrypted: bool
    join_rule: str
    history_visibility: str
    joined: int
    power: Power
    spaces: NotRequired[list[str]]
    replaces: NotRequired[str]
    replaced_by: NotRequired[str]
    note: NotRequired[str]


class State(OfRoom, Untrusted):
    """A state event's content; `cut_content` is the beginning of its JSON where it is too
    large."""

    event_type: str
    state_key: str
    content: NotRequired[dict[str, Any]]
    cut_content: NotRequired[str]


@tool("matrix_get_room", "Get a room", Scope.READ, RoomInfo, read_only=True)
async def get_room(caller: Caller, params: RoomParams) -> Result:
    """Tell about a Matrix room you are in: names, rules, power, what replaced it."""
    intent = caller.intent
    async with joined_room(caller, params.room_id) as room_id:
        state, joined, card = await asyncio.gather(
            _state(intent, room_id),
            intent.joined_members(room_id),
            caller.house.known.card(intent, room_id),
        )
    return {
        "room_id": room_id,
        **UNTRUSTED,
        "name": cut(card.title(caller.user_id), _ID),
        **_looks(state),
        **_rules(state),
        "joined": len(joined),
        "power": power(state, caller.user_id),
        **_relatives(state),
    }


@tool("matrix_get_state", "Get room state", Scope.READ, State, read_only=True)
async def get_state(caller: Caller, params: GetState) -> Result:
    """Get the content of a state event of a Matrix room you are in."""
    kind, key = params.event_type, params.state_key
    async with joined_room(caller, params.room_id) as room_id:
        content = await _content(caller.intent, room_id, kind, key)
    if content is None:
        named = f"{kind} with the state key {key!r}" if key else kind
        raise ToolError(f"{room_id} has no {named}.", Fault.NOT_FOUND)
    told = {"room_id": room_id, "event_type": kind, "state_key": key, **UNTRUSTED}
    result: dict[str, object] = {**told, "content": content}
    if size(result) <= LIMIT:
        return result
    return {**told, "cut_content": cut(json.dumps(content), LIMIT // 3)}


def power(state: Contents, own_id: str) -> dict[str, object]:
    """Who may do what (spec: `m.room.power_levels`; room version 12: creators)."""
    levels = state.get(("m.room.power_levels", ""), {})
    create = state.get(("m.room.create", ""), {})
    above = creators({"sender": create.get("sender"), "content": create})
    users = {str(who): level(has, 0) for who, has in mapping(levels.get("users")).items()}
    own = level_of(levels, own_id)
    needed = {"send": needed_to_send(levels), **needed_for(levels)}
    needed["set_state"] = needed.pop("state_default")
    strong = sorted(users.items(), key=lambda user: -user[1])[:_SHOWN]
    return {
        "yours": own,
        "you_may": [action for action, least in needed.items() if own_id in above or own >= least],
        "users": {cut(who, _ID): has for who, has in strong},
        **({"creators": [cut(who, _ID) for who in above[:_SHOWN]]} if above else {}),
        "needed": needed,
    }


async def _content(intent: Intent, room_id: str, kind: str, key: str) -> Mapping[str, Any] | None:
    if {kind, key} & {".", ".."}:
        return None  # they would lead to another path
    try:
        return await intent.existing_state(room_id, kind, key)
    except MNotFound:
        return None


async def _state(intent: Intent, room_id: str) -> Contents:
    """All state but that of members, who may be many thousands: what the homeserver tells
    beside the newest event."""
    page = await intent.messages(room_id, limit=1, filters=_LAZY)
    if not page.events:
        return {}
    event_id = str(page.events[0].get("event_id"))
    around = await intent.around(room_id, event_id, limit=0, filters=_LAZY)
    state: dict[tuple[str, str], Mapping[str, Any]] = {}
    for event in around.state:
        kind, content = str(event.get("type")), dict(mapping(event.get("content")))
        if kind == "m.room.create":
            content["sender"] = event.get("sender")
        state[kind, str(event.get("state_key"))] = content
    return state


def _looks(state: Contents) -> dict[str, object]:
    """Texts that people chose."""
    kinds = {"topic": "topic", "canonical_alias": "alias", "avatar": "url"}
    found = {kind: state.get((f"m.room.{kind}", ""), {}).get(key) for kind, key in kinds.items()}
    texts = {kind: text for kind, text in found.items() if isinstance(text, str) and text}
    return {kind.removeprefix("canonical_"): cut(clean_text(texts[kind]), _TEXT) for kind in texts}


def _rules(state: Contents) -> dict[str, object]:
    create = state.get(("m.room.create", ""), {})
    kind = create.get("type")
    return {
        **({"type": cut(kind, _ID)} if isinstance(kind, str) else {}),
        "version": cut(str(create.get("room_version") or "1"), _ID),
        "encrypted": ("m.room.encryption", "") in state,
        "join_rule": _word(state, "join_rules", "join_rule", "invite"),
        "history_visibility": _word(state, "history_visibility", "history_visibility", "shared"),
    }


def _word(state: Contents, kind: str, field: str, default: str) -> str:
    return cut(str(state.get((f"m.room.{kind}", ""), {}).get(field) or default), _ID)


def _relatives(state: Contents) -> dict[str, object]:
    """The spaces a room says it is in, and the rooms before and after it (spec: Room
    upgrades)."""
    spaces = [key for (kind, key), content in state.items() if kind == "m.space.parent" and content]
    told = filled(spaces=[cut(one, _ID) for one in sorted(spaces)[:_SHOWN]])
    before = mapping(state.get(("m.room.create", ""), {}).get("predecessor")).get("room_id")
    if isinstance(before, str):
        told["replaces"] = cut(before, _ID)
    after = state.get(("m.room.tombstone", ""), {}).get("replacement_room")
    if isinstance(after, str) and after:
        told["replaced_by"] = cut(after, _ID)
        told["note"] = "This room was upgraded: people go on in the room `replaced_by`."
    return told

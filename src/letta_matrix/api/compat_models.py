"""What the paths of the original Letta-Matrix integration take and give: its fields."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_INSTEAD = "instead of the Authorization header: a token of the bridge, such as /login gives"
_HOMESERVER = "if given, the one that the bridge is configured for"
_ROOM = "!abc:example.org"
_TIME = {"timestamp": 1790000000000, "formatted_time": "2026-09-21 14:13:20"}
_MESSAGE = {"sender": "@ann:example.org", "body": "Hello", "event_id": "$1a2b3c", **_TIME}


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(frozen=True, json_schema_extra={"examples": [fields]})


class CompatLogin(BaseModel):
    model_config = _example(user_id="@ann:example.org", **{"password": "..."})

    homeserver: str = Field("", max_length=1_000, description=_HOMESERVER)
    user_id: str = Field(min_length=1, max_length=255)
    password: str = Field(min_length=1, max_length=1_000)
    device_name: str | None = Field(None, max_length=1_000, description="not used")


class CompatLoggedIn(BaseModel):
    model_config = _example(
        success=True,
        **{"access_token": "lm_..."},
        device_id=None,
        user_id="@ann:example.org",
        message="Login successful.",
    )

    success: bool
    access_token: str = Field(description="a token of the bridge, never one of Matrix")
    device_id: str | None = Field(description="always null: the device is logged out again")
    user_id: str
    message: str


class CompatSend(BaseModel):
    model_config = _example(room_id=_ROOM, message="Hello")

    room_id: str = Field(min_length=1, max_length=255)
    message: str = Field(min_length=1, max_length=100_000)
    access_token: str = Field("", max_length=20_000, description=_INSTEAD)
    homeserver: str = Field("", max_length=1_000, description=_HOMESERVER)


class CompatSent(BaseModel):
    model_config = _example(success=True, event_id="$1a2b3c", message="Message sent successfully")

    success: bool
    event_id: str
    message: str


class CompatGet(BaseModel):
    model_config = _example(room_id=_ROOM, limit=5)

    room_id: str = Field(min_length=1, max_length=255)
    limit: int = Field(5, ge=1, le=50)
    access_token: str = Field("", max_length=20_000, description=_INSTEAD)
    homeserver: str = Field("", max_length=1_000, description=_HOMESERVER)


class CompatMessage(BaseModel):
    """`timestamp` is a Unix time in milliseconds; `formatted_time` is UTC."""

    model_config = _example(**_MESSAGE)

    sender: str
    body: str
    timestamp: int
    formatted_time: str
    event_id: str


class CompatMessages(BaseModel):
    model_config = _example(success=True, messages=[_MESSAGE], message="Retrieved 1 messages")

    success: bool
    messages: list[CompatMessage]
    message: str


class CompatRoomMessage(CompatMessage):
    room_id: str
    room_name: str


class CompatRecent(BaseModel):
    model_config = _example(
        success=True,
        messages=[{**_MESSAGE, "room_id": _ROOM, "room_name": "Ada"}],
        total_found=1,
        limit=10,
        message="Retrieved 1 most recent messages from 1 rooms",
    )

    success: bool
    messages: list[CompatRoomMessage]
    total_found: int
    limit: int
    message: str


class CompatRoom(BaseModel):
    room_id: str
    room_name: str


class CompatRoomList(BaseModel):
    model_config = _example(
        success=True, rooms=[{"room_id": _ROOM, "room_name": "Ada"}], message="Found 1 rooms"
    )

    success: bool
    rooms: list[CompatRoom]
    message: str


class CompatNewAgent(BaseModel):
    model_config = _example(agent_id="agent-1", timestamp="2026-09-21T14:13:20")

    agent_id: str = Field(min_length=1, max_length=255)
    timestamp: str = Field("", max_length=100, description="not used")


class CompatSynced(BaseModel):
    model_config = _example(
        success=True, message="The agents are listed.", timestamp="2026-09-21T14:13:21+00:00"
    )

    success: bool
    message: str
    timestamp: str


class CompatMapping(BaseModel):
    """An agent and its room. `room_created` is false as long as there is none."""

    agent_id: str
    agent_name: str
    matrix_user_id: str
    room_id: str | None
    room_created: bool
    created: bool


class CompatMappings(BaseModel):
    model_config = _example(
        success=True,
        message="Retrieved 1 agent mappings",
        mappings={
            "agent-1": {
                "agent_id": "agent-1",
                "agent_name": "Ada",
                "matrix_user_id": "@agent_1:example.org",
                "room_id": _ROOM,
                "room_created": True,
                "created": True,
            }
        },
    )

    success: bool
    message: str
    mappings: dict[str, CompatMapping] = Field(description="by agent id")


class CompatAgentRoom(BaseModel):
    model_config = _example(
        success=True,
        agent_id="agent-1",
        agent_name="Ada",
        room_id=_ROOM,
        matrix_user_id="@agent_1:example.org",
        room_created=True,
        invitation_status={},
    )

    success: bool
    agent_id: str
    agent_name: str
    room_id: str
    matrix_user_id: str
    room_created: bool
    invitation_status: dict[str, str] = Field(description="always empty")


class CompatService(BaseModel):
    model_config = _example(
        message="letta-matrix", version="0.1.0", status="running", docs="/docs", chat="/chat"
    )

    message: str
    version: str
    status: str
    docs: str
    chat: str


class CompatHealth(BaseModel):
    """How the bridge is; more figures stand beside these."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "status": "ok",
                    "authenticated": True,
                    "agent_sync_available": True,
                    "timestamp": "2026-09-21T14:13:20+00:00",
                }
            ]
        },
    )

    status: str = Field(description="`ok` or `degraded`")
    authenticated: bool = Field(description="whether the homeserver is connected")
    agent_sync_available: bool
    timestamp: str


class CompatReady(BaseModel):
    model_config = _example(ready=True)

    ready: bool

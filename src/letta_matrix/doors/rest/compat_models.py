"""What the paths of the original Letta-Matrix integration take and give: its fields."""

from pydantic import BaseModel, ConfigDict, Field

_INSTEAD = "instead of the Authorization header: a token of the bridge, such as /login gives"
_HOMESERVER = "if given, the one that the bridge is configured for"


class CompatTold(BaseModel):
    success: bool
    message: str


class CompatLogin(BaseModel):
    homeserver: str = Field("", max_length=1_000, description=_HOMESERVER)
    user_id: str = Field(min_length=1, max_length=255)
    password: str = Field(min_length=1, max_length=1_000)
    device_name: str | None = Field(None, max_length=1_000, description="not used")


class CompatLoggedIn(CompatTold):
    access_token: str = Field(description="a token of the bridge, never one of Matrix")
    device_id: str | None = Field(description="always null: the device is logged out again")
    user_id: str


class CompatSend(BaseModel):
    room_id: str = Field(min_length=1, max_length=255)
    message: str = Field(min_length=1, max_length=100_000)
    access_token: str = Field("", max_length=20_000, description=_INSTEAD)
    homeserver: str = Field("", max_length=1_000, description=_HOMESERVER)


class CompatSent(CompatTold):
    event_id: str


class CompatGet(BaseModel):
    room_id: str = Field(min_length=1, max_length=255)
    limit: int = Field(5, ge=1, le=50)
    access_token: str = Field("", max_length=20_000, description=_INSTEAD)
    homeserver: str = Field("", max_length=1_000, description=_HOMESERVER)


class CompatMessage(BaseModel):
    """`timestamp` is a Unix time in milliseconds; `formatted_time` is UTC."""

    sender: str
    body: str
    timestamp: int
    formatted_time: str
    event_id: str


class CompatMessages(CompatTold):
    messages: list[CompatMessage]


class CompatRoomMessage(CompatMessage):
    room_id: str
    room_name: str


class CompatRecent(CompatTold):
    messages: list[CompatRoomMessage]
    total_found: int
    limit: int


class CompatRoom(BaseModel):
    room_id: str
    room_name: str


class CompatRoomList(CompatTold):
    rooms: list[CompatRoom]


class CompatNewAgent(BaseModel):
    agent_id: str = Field(min_length=1, max_length=255)
    timestamp: str = Field("", max_length=100, description="not used")


class CompatSynced(CompatTold):
    timestamp: str


class CompatMapping(BaseModel):
    """An agent and its room. `room_created` is false as long as there is none."""

    agent_id: str
    agent_name: str
    matrix_user_id: str
    room_id: str | None
    room_created: bool
    created: bool


class CompatMappings(CompatTold):
    mappings: dict[str, CompatMapping] = Field(description="by agent id")


class CompatAgentRoom(BaseModel):
    success: bool
    agent_id: str
    agent_name: str
    room_id: str
    matrix_user_id: str
    room_created: bool
    invitation_status: dict[str, str] = Field(description="always empty")


class CompatService(BaseModel):
    message: str
    version: str
    status: str
    docs: str
    chat: str
    dashboard: str


class CompatHealth(BaseModel):
    """How the bridge is; more figures stand beside these."""

    model_config = ConfigDict(extra="allow")

    status: str = Field(description="`ok` or `degraded`")
    authenticated: bool = Field(description="whether the homeserver is connected")
    agent_sync_available: bool
    timestamp: str


class CompatReady(BaseModel):
    ready: bool

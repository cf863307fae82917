"""What a replica needs to know of itself, where several bridges share one PostgreSQL."""

from pydantic import Field

from letta_matrix.config.types import Duration, Section


class ReplicaSettings(Section):
    address: str | None = Field(
        default=None,
        description="host by which other replicas reach this one's ports; default: this machine, "
        "or its host name where the ports are open to others",
    )
    lease: Duration = Field(
        default=8.0,
        ge=1,
        description="seconds after which another replica takes the place of one that is silent",
    )
    drain_timeout: Duration = Field(
        default=20.0,
        description="how long turns in flight may go on when a replica is to end, or makes way",
    )

"""A typed client of the REST API: `LettaMatrix`, its errors, and what it answers (`types`)."""

from letta_matrix.client.bridge_client import LettaMatrix
from letta_matrix.client.errors import ApiError, ClientError, Unreachable
from letta_matrix.client.events import StreamEvent

__all__ = ["ApiError", "ClientError", "LettaMatrix", "StreamEvent", "Unreachable"]

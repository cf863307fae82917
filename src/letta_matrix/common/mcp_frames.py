"""What both ends of the WebSocket transport know: docs/how-to/mcp.md specifies it."""

SUBPROTOCOL = "mcp"

LARGEST = 10_000_000
"""Bytes of a message from a client: the largest file a tool takes, in base64, and its JSON."""

TEXT_ONLY = 1003
INTERNAL = 1011
GOING_AWAY = 1001
UNAUTHORIZED = 4401
"""Close codes (RFC 6455, section 7.4.1); the last one is ours, after the status of HTTP."""

LOST = -32000
TOO_MANY, TOO_OFTEN, NOT_ADMITTED, NOT_NOW, TOO_LARGE = -32010, -32011, -32012, -32013, -32014
"""Errors of JSON-RPC, of those that it leaves to implementations."""

"""What a call gives, as MCP's `tools/call` result (MCP specification, server/tools)."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from letta_matrix.access.faults import ToolError
from letta_matrix.common.audio_headers import audio_type
from letta_matrix.common.image_headers import image_shape
from letta_matrix.operations.toolbox.results import bounded
from letta_matrix.operations.toolbox.tool import Result

COMPLETE = {"resultType": "complete"}
"""In every result since the revision 2026-07-28."""

FAULT = "org.letta.matrix/fault"
"""In the `_meta` of a failed call: the value of `Fault`."""

RETRY_AFTER = "org.letta.matrix/retryAfter"
"""In the `_meta` of a failed call: seconds after which another try may help."""

_BYTES = "content_base64"


def call_result(result: Result) -> dict[str, Any]:
    """A successful call: the result as structured content and as JSON text. A whole file comes as
    a content block of its own instead of within the text."""
    text, structured = _valid(result)
    data = structured.get(_BYTES)
    if not isinstance(data, str) or structured.get("offset") or "next" in structured:
        return _outcome([_text(text)], structured)
    rest = {key: structured[key] for key in structured if key != _BYTES}
    return _outcome([_text(_dumped(rest)), _file(structured, data)], structured)


def error_result(error: ToolError) -> dict[str, Any]:
    """A failed call: what a model is told, and for programs the kind of fault."""
    meta: dict[str, Any] = {FAULT: str(error.fault)}
    if error.retry_after > 0:
        meta[RETRY_AFTER] = error.retry_after
    return {**COMPLETE, "content": [_text(bounded(str(error)))], "isError": True, "_meta": meta}


def _outcome(content: list[dict[str, Any]], structured: Mapping[str, object]) -> dict[str, Any]:
    return {**COMPLETE, "content": content, "structuredContent": structured, "isError": False}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _file(result: Mapping[str, object], encoded: str) -> dict[str, Any]:
    # What the file is, not what its sender says: models refuse a whole request for a false image.
    data = base64.b64decode(encoded)
    if (shape := image_shape(data)) is not None:
        return {"type": "image", "data": encoded, "mimeType": shape.media_type}
    if audio := audio_type(data):
        return {"type": "audio", "data": encoded, "mimeType": audio}
    media_type = str(result.get("media_type") or "application/octet-stream")
    resource = {"uri": str(result["mxc"]), "mimeType": media_type, "blob": encoded}
    return {"type": "resource", "resource": resource}


def _valid(result: Result) -> tuple[str, Mapping[str, Any]]:
    """As text, and as itself: without broken surrogates, which no UTF-8 stream can carry."""
    text = _dumped(result)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
        return text, json.loads(text)
    return text, result


def _dumped(result: Result) -> str:
    return json.dumps(result, ensure_ascii=False, separators=(",", ":"))

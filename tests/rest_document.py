"""The REST API's OpenAPI document, which takes half a second to make."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.builders import config_for

from letta_matrix.doors.rest.app import make_app

_services: Any = SimpleNamespace(config=config_for(Path()), homeserver=None)
DOCUMENT: dict[str, Any] = make_app(_services).openapi()
OPERATIONS = [
    (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
]
"""Methods and paths."""

"""Settings of what the bridge tells whoever watches it: the sections `logging` and `telemetry`."""

from typing import Literal

from pydantic import Field

from letta_matrix.config.types import HttpAddress, Section


class Logging(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


class Telemetry(Section):
    otlp_endpoint: HttpAddress | None = Field(
        default=None,
        description="base URL of an OpenTelemetry collector (OTLP/HTTP), such as "
        "http://127.0.0.1:4318; without it OTEL_EXPORTER_OTLP_ENDPOINT, else no traces",
    )

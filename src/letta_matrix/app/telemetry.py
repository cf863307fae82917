"""Whether turns are traced, and where to (OpenTelemetry, OTLP over HTTP)."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

import structlog

from letta_matrix.config import Config, ConfigError

if TYPE_CHECKING:
    from letta_matrix.app.tracing import Tracing

log = structlog.get_logger()

# OpenTelemetry, "OpenTelemetry Protocol Exporter", Endpoint URLs for OTLP/HTTP.
_BASE, _TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_PATH = "v1/traces"
_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_INSTALL = "pip install 'letta-matrix[otel]'"


def tracing_of(config: Config, environment: Mapping[str, str]) -> "Tracing | None":
    """What traces turns, None where nobody wants it: then nothing of it is imported. Raises
    ConfigError where the configuration wants it and the extra is not installed."""
    url = endpoint(config, environment)
    if not url:
        return None
    check_telemetry(config)
    if not _is_installed():
        log.warning("turns are not traced", reason=f"that needs more packages: {_INSTALL}")
        return None
    from letta_matrix.app.tracing import Tracing

    return Tracing(url)


def check_telemetry(config: Config) -> None:
    """Raises ConfigError where the configuration wants traces and the extra is not installed."""
    if config.telemetry.otlp_endpoint is not None and not _is_installed():
        raise ConfigError(f"`telemetry.otlp_endpoint` needs more packages: {_INSTALL}")


def endpoint(config: Config, environment: Mapping[str, str]) -> str:
    """Where traces are sent, "" for nowhere."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ""
    if not (base := config.telemetry.otlp_endpoint):
        if whole := environment.get(_TRACES):
            return whole
        base = environment.get(_BASE, "")
    return f"{base.rstrip('/')}/{_PATH}" if base else ""


def _is_installed() -> bool:
    try:
        return all(find_spec(name) is not None for name in _NEEDED)
    except ModuleNotFoundError:
        return False

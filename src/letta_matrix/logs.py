"""Logging for a whole process, with secrets masked wherever they turn up."""

import logging
import re
import sys
from collections.abc import Iterable
from typing import Any

import structlog

from letta_matrix.config import Config, Logging

_MASK = "[secret]"
_TOKEN = re.compile(r"lm_[0-9a-f]{12}_[\w-]{43}", re.ASCII)
"""Tokens that the bridge has given out; it knows their digests alone."""


def configure_logging(settings: Logging, secrets: Iterable[str] = ()) -> None:
    """Send structlog to stderr; `secrets` are masked in every line."""
    hidden = [secret for secret in secrets if secret]

    def mask(_logger: object, _name: str, line: Any) -> Any:
        for secret in hidden:
            line = line.replace(secret, _MASK)
        return _TOKEN.sub(_MASK, line)

    human = settings.format == "console"
    renderer: Any = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        if human
        else structlog.processors.JSONRenderer()
    )
    exceptions = [] if human else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *exceptions,
            renderer,
            mask,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # mautrix logs whole requests, message texts included; uvicorn what strangers send, and what
    # we log ourselves.
    for name in ("mau", "uvicorn"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def secrets_of(config: Config) -> list[str]:
    """Every secret of a configuration."""
    tokens = [config.appservice.as_token, config.appservice.hs_token]
    for runtime in config.runtimes:
        keys = (getattr(runtime, name, None) for name in ("token", "api_key"))
        tokens += [key for key in keys if key is not None]
    return [token.get_secret_value() for token in tokens]

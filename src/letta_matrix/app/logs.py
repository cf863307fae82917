"""Logging for a whole process, with secrets masked wherever they turn up, and without end of
repetitions."""

import contextvars
import logging
import re
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

import structlog
from pydantic import BaseModel, SecretStr

from letta_matrix.common.json_fields import items
from letta_matrix.common.log_repeats import Line, Repeats
from letta_matrix.common.vitals import Trouble
from letta_matrix.config import Logging
from letta_matrix.matrix.verbatim import visible

_MASK = "[secret]"
_LONGEST = 300
"""Characters of a library's line."""
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
    escaping = [_escaped] if human else []
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _without_stack,
            Repeats(_say),
            # Behind it: what is the same for two turns is not said twice.
            structlog.contextvars.merge_contextvars,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *escaping,
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
    # What OpenTelemetry says of its collector, again and again, is in /health.
    for name in ("mau", "uvicorn", "opentelemetry"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    root = logging.getLogger()
    others = [one for one in root.handlers if not isinstance(one, _FromLibraries)]
    root.handlers[:] = [*others, _FromLibraries()]


@contextmanager
def silence() -> Generator[None]:
    """Log nothing meanwhile: what is found is told in another way."""
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        structlog.reset_defaults()


_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


class _FromLibraries(logging.Handler):
    """Lines of libraries, asyncio's and aiohttp's among them, go the way of ours: each is one
    line, with a stack only where it tells of a defect."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._pass_on(record)
        except Exception:  # noqa: BLE001 - as every handler does: a bad line is no fault of its caller
            self.handleError(record)

    def _pass_on(self, record: logging.LogRecord) -> None:
        event = record.getMessage().partition("\n")[0][:_LONGEST]
        error = record.exc_info[1] if record.exc_info else None
        details: dict[str, object] = {"logger": record.name}
        if isinstance(error, OSError):
            details["reason"] = str(error)
        elif error is not None:
            details["exc_info"] = error
        # Libraries may have levels of their own.
        level = max((one for one in _LEVELS if one <= record.levelno), default=logging.DEBUG)
        structlog.get_logger().log(level, event, **details)


def _without_stack(_logger: object, _name: str, line: Any) -> Any:
    """A processor: what tells by itself what is wrong, and what to do, is no defect of ours, so
    that nobody needs to know where it came up."""
    error = line.get("exc_info")
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(getattr(error, "trouble", None), Trouble):
        del line["exc_info"]
        line.setdefault("reason", str(error))
    return line


def _escaped(_logger: object, _name: str, line: Any) -> Any:
    """A processor: nothing that others say gives the terminal an order, or looks like a line of
    ours. JSON does that by itself."""
    for name, value in line.items():
        if name == "exception":
            line[name] = "\n  ".join(map(visible, value.split("\n")))
        elif isinstance(value, str):
            line[name] = visible(value)
    return line


def _say(line: Line) -> None:
    level = logging.getLevelNamesMapping()[str(line["level"]).upper()]
    told = {k: v for k, v in line.items() if k != "level"}
    # It is of no turn, though one may have led to it.
    contextvars.Context().run(structlog.get_logger().log, level, **told)


def secrets_of(value: object) -> list[str]:
    """Every secret of a configuration, or of a part of one."""
    if isinstance(value, SecretStr):
        return [value.get_secret_value()]
    parts = [part for _, part in value] if isinstance(value, BaseModel) else items(value) or []
    return [secret for part in parts for secret in secrets_of(part)]

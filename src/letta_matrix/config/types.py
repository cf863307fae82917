"""Types of settings: what a value may look like, and what it is read as."""

import math
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, SecretStr

from letta_matrix.common.addresses import is_address, names_user, place_of
from letta_matrix.common.durations import seconds_in

_SERVER_NAME = r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?"
_USER_ID = rf"@[^:\s]+:{_SERVER_NAME}"


def _seconds(value: object) -> float:
    if isinstance(value, str) and (seconds := seconds_in(value.strip())) is not None:
        return seconds
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    raise ValueError("should be seconds or a text such as `500ms`, `30s`, `24h`")


def matches(pattern: str, expected: str) -> AfterValidator:
    """A text that matches `pattern` as a whole, which a person knows as `expected`."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(f"should be {expected}")
        return value

    return AfterValidator(check)


def _address(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        if names_user(value):
            raise ValueError("should have no user name or password: keys have their own settings")
        if not is_address(value, *schemes):
            raise ValueError(f"should be a URL that starts with {schemes[0]}:// or {schemes[1]}://")
        return value.rstrip("/")

    return AfterValidator(check)


def _base(value: str) -> str:
    base, api, _ = value.partition("/_matrix")
    if api:
        raise ValueError(f"should be the address before /_matrix: {base}")
    return value


def _place(value: str) -> str:
    place_of(value)
    return value


def _absolute(value: Path) -> Path:
    if not (path := value.expanduser()).is_absolute():
        raise ValueError("should be an absolute path")
    return path


def _not_empty(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("should not be empty")
    return value


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
"""A path that starts at the root, or at a home folder with `~`."""

Duration = Annotated[float, BeforeValidator(_seconds)]
"""Seconds; in the file a number of seconds or a text such as `500ms`, `30s`, `24h`."""

HttpAddress = Annotated[str, _address("http", "https")]
HomeserverAddress = Annotated[HttpAddress, AfterValidator(_base)]
"""The base URL of a client-server API, without `/_matrix`."""
WebSocketAddress = Annotated[str, _address("ws", "wss")]
DatabaseAddress = Annotated[
    str,
    matches(
        r"sqlite://.*|postgres(ql)?(\+psycopg)?://.+",
        "sqlite:///FILE or postgresql://USER@HOST/DATABASE",
    ),
]
PlaceName = Annotated[str, AfterValidator(_place)]
"""See `place_of`."""
ServerName = Annotated[str, matches(_SERVER_NAME, "a server name such as example.org")]
UserId = Annotated[str, matches(_USER_ID, "a user id such as @you:example.org")]
Person = Annotated[
    str,
    matches(
        rf"\*|{_USER_ID}|{_SERVER_NAME}",
        "`*`, a server name, or a user id such as @you:example.org",
    ),
]
Token = Annotated[SecretStr, AfterValidator(_not_empty)]


def secret_of(value: SecretStr | None) -> str:
    """What it holds, "" for none."""
    return "" if value is None else value.get_secret_value()


class Section(BaseModel):
    """A section of the file: unknown keys are faults, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

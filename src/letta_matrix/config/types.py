"""Types of settings: what a value may look like, and what it is read as."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
)

from letta_matrix.common.addresses import is_address, names_user, place_of
from letta_matrix.common.durations import seconds_in

_SERVER_NAME = r"(?:[A-Za-z0-9.-]{1,230}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
# Historical ones have any character (spec: User Identifiers, Historical User IDs).
_LOCALPART = r"[^:\s\x00-\x20\x7f-\x9f\ud800-\udfff]{1,250}"
_USER_ID = rf"@{_LOCALPART}:{_SERVER_NAME}"
_HOST = r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?|[0-9A-Fa-f:.%]{2,60}|"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LARGEST, _LONGEST = 10**12, 100 * 366 * 86_400
"""Of a number, and the seconds of a hundred years: what lies beyond fits into no clock, date or
database."""


def _seconds(value: object) -> float:
    seconds = seconds_in(value.strip()) if isinstance(value, str) else value
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not seconds >= 0:
        raise ValueError("should be seconds or a text such as `500ms`, `30s`, `24h`")
    if seconds > _LONGEST:
        raise ValueError("should be less than a hundred years")
    return float(seconds)


def _no_boolean(value: object) -> object:
    # Else `yes` is 1.
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


def matches(pattern: str, expected: str) -> AfterValidator:
    """A text that matches `pattern` as a whole, which a person knows as `expected`."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(f"should be {expected}")
        return value

    return AfterValidator(check)


def _address(*schemes: str, takes_query: bool = False) -> AfterValidator:
    ends = "#" if takes_query else "?#"

    def check(value: str) -> str:
        if names_user(value):
            raise ValueError("should have no user name or password: keys have their own settings")
        if not is_address(value, *schemes):
            raise ValueError(f"should be a URL that starts with {schemes[0]}:// or {schemes[1]}://")
        if re.search(rf"[{ends}]", value):
            raise ValueError(f"should be a URL that ends before any {' or '.join(ends)}")
        base, mark, query = value.partition("?")
        return base.rstrip("/") + mark + query

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
    if not (path := Path(file_path(str(value))).expanduser()).is_absolute():
        raise ValueError("should be an absolute path")
    return path


_LONGEST_NAME, _LONGEST_PATH = 255, 1000
"""Bytes of a file's name (NAME_MAX), and of a path with some before it (PATH_MAX)."""


def file_path(value: str) -> str:
    """The same, if it can be the path of a file. Raises ValueError."""
    if not value or _CONTROL.search(value):
        raise ValueError("should be a path")
    names = [len(name.encode()) for name in value.split("/")]
    if max(names) > _LONGEST_NAME or sum(names) > _LONGEST_PATH:
        raise ValueError("should be a path that is not so long")
    try:
        Path(value).expanduser()
    except RuntimeError:
        raise ValueError("should be a path: there is no such user's home folder") from None
    return value


def _not_empty(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text.strip():
        raise ValueError("should not be empty")
    if len(text.splitlines()) > 1 or text.splitlines()[0] != text:
        raise ValueError("should be one line, without the break at its end")
    return value


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
"""A path that starts at the root, or at a home folder with `~`."""

FilePath = Annotated[str, AfterValidator(file_path)]
"""A path, relative ones from the configuration file's folder, or from a home folder with `~`."""

ListenHost = Annotated[str, matches(_HOST, "a host name, an address, or empty for all of them")]

Whole = Annotated[int, BeforeValidator(_no_boolean)]
Number = Annotated[float, BeforeValidator(_no_boolean), Field(allow_inf_nan=False)]

Duration = Annotated[float, BeforeValidator(_seconds)]
"""Seconds; in the file a number of seconds or a text such as `500ms`, `30s`, `24h`."""

HttpAddress = Annotated[str, _address("http", "https")]
HomeserverAddress = Annotated[HttpAddress, AfterValidator(_base)]
"""The base URL of a client-server API, without `/_matrix`."""
WebSocketAddress = Annotated[str, _address("ws", "wss", takes_query=True)]
"""Behind it may stand what a proxy wants to know, `?key=...`."""
_DATABASE_HOST = r"(?:\[[^\[\]]*\]|[^:/?,@\[\]]*)(?::\d{1,5})?"
DatabaseAddress = Annotated[
    str,
    matches(
        r"sqlite://(?:/.*)?|postgres(ql)?(\+psycopg)?://(?!$)(?:[^/@]*@)?"
        rf"{_DATABASE_HOST}(?:,{_DATABASE_HOST})*(?:[/?].*)?",
        "sqlite:///FILE or postgresql://USER@HOST:PORT/DATABASE",
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

    @field_validator("*")
    @classmethod
    def _no_monsters(cls, value: object) -> object:
        """No text that no server, terminal or file system takes, and no number out of all
        proportion."""
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if isinstance(text, str) and _CONTROL.search(text):
            raise ValueError("should have no control characters")
        if isinstance(value, int | float) and value > _LARGEST:
            raise ValueError(f"should be at most {_LARGEST}")
        return value

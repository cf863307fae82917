"""Where the bridge keeps what it knows, and the password for it."""

import re
from pathlib import Path
from urllib.parse import unquote

from pydantic import Field

from letta_matrix.common.json_fields import mapping
from letta_matrix.common.lenient_json import printable
from letta_matrix.config.faults import ConfigError, shortened
from letta_matrix.config.types import DatabaseAddress, FilePath, Section, Token, file_path

_WITH_PASSWORD = re.compile(r"(\w[\w+.-]*:/*[^:/@]*):([^?]*|.*)@([^@?]*(?:\?.*)?)")
"""An `@` behind the `?` ends no password, unless there is no other."""
_IN_QUERY = re.compile(r"[?&](pass(word|file)?)=")
_LONGEST = 4096
"""Bytes of a password."""
_SHOWN = 300


class Database(Section):
    url: DatabaseAddress = Field(
        default="sqlite:///letta-matrix.db",
        description="relative SQLite paths start at the config file",
    )
    password: Token | None = Field(default=None, description="of the user in a postgresql:// URL")
    password_file: FilePath | None = Field(
        default=None, description="a file that holds this password, and nothing else"
    )


def with_password(data: dict[str, object], file: Path) -> None:
    """Let `database.password` have what stands in its file, or in the URL: texts show the URL.

    Raises:
        ConfigError: the file cannot be read, or there is more than one password.
    """
    section = mapping(data.get("database"))
    if not section:
        return
    found: dict[str, object] = {}
    url, name = section.get("url"), section.get("password_file")
    if section.get("password") is not None:
        found["database.password"] = section["password"]
    if isinstance(url, str):
        if _IN_QUERY.search(url):
            raise ConfigError(f"{file}: `database.url` should have no password behind its `?`")
        if (parts := _WITH_PASSWORD.fullmatch(url)) is not None:
            found["database.url"] = unquote(parts[2])
            url = without_password(url)
    if isinstance(name, str) and (path := _path(file, name)) is not None:
        found["database.password_file"] = _password_in(file, path)
    if len(found) > 1:
        raise ConfigError(f"{file}: {' and '.join(found)} both have a password: leave one")
    password = {"password": next(iter(found.values()))} if found else {}
    data["database"] = {**section, **({"url": url} if url is not None else {}), **password}


def without_password(url: str) -> str:
    """An address as texts may show it."""
    parts = _WITH_PASSWORD.fullmatch(url)
    return url if parts is None else f"{parts[1]}@{parts[3]}"


def _path(config: Path, name: str) -> Path | None:
    """None where it is no path, as whoever checks the settings says."""
    try:
        return config.resolve().parent / Path(file_path(name)).expanduser()
    except ValueError:
        return None


def _password_in(config: Path, path: Path) -> str:
    problem = ""
    try:
        # A pipe or a device may be read without end.
        if path.exists() and not path.is_file():
            problem = "it is no regular file"
        elif path.stat().st_size > _LONGEST:
            problem = "it is longer than any password"
        elif said := path.read_bytes().decode("utf-8-sig").strip("\r\n"):
            return said
        else:
            problem = "it is empty"
    except OSError as error:
        problem = str(error.strerror)
    except UnicodeDecodeError:
        problem = "it is no text in UTF-8"
    shown = shortened(printable(str(path)), _SHOWN)
    text = f"`database.password_file` should be a file that can be read ({shown}: {problem})"
    raise ConfigError(f"{config}: {text}")

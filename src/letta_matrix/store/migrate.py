"""Brings the database whose URL stands on stdin to the newest schema (Alembic)."""

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError

from letta_matrix.store import faults, postgres_faults
from letta_matrix.store.database import file_of

MIGRATIONS = Path(__file__).parent / "migrations"


def alembic_config(url: str) -> Config:
    """Alembic's configuration for our migrations on `url`."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def main() -> None:
    url = sys.stdin.read().strip()
    try:
        command.upgrade(alembic_config(url), "head")
    except DBAPIError as error:
        # The last line is what people are told.
        sys.exit(_told(error, make_url(url)))


def _told(error: DBAPIError, url: URL) -> str:
    """What it is, and what to do."""
    cause, file = error.orig or error, file_of(url)
    fault = postgres_faults.fault_of(cause, "") if file is None else faults.fault_of(error, file)
    line = faults.line_of(str(cause).partition("\n")[0])
    return "; ".join(filter(None, (line, fault.trouble.remedy)))


if __name__ == "__main__":
    main()

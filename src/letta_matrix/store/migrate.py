"""Brings the database whose URL stands on stdin to the newest schema (Alembic)."""

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError

from letta_matrix.store.faults import line_of

MIGRATIONS = Path(__file__).parent / "migrations"


def alembic_config(url: str) -> Config:
    """Alembic's configuration for our migrations on `url`."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def main() -> None:
    try:
        command.upgrade(alembic_config(sys.stdin.read().strip()), "head")
    except DBAPIError as error:
        # The last line is what people are told.
        sys.exit(line_of(str(error.orig)))


if __name__ == "__main__":
    main()

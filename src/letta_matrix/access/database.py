"""The database, as configured."""

from sqlalchemy import URL

from letta_matrix.config import Config
from letta_matrix.store.database import database_url


def url_of_database(config: Config) -> URL:
    """Where the database of a configuration is, with the password for it."""
    return database_url(config.database.url, config.directory, config.database_password)

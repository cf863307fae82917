"""A module of Synapse, whose database does not wait for the disk then; see unsynced.py. Synapse
loads a copy from its folder."""

from typing import Any

from synapse.storage.engines.sqlite import Sqlite3Engine

_set_up = Sqlite3Engine.on_new_connection


def _set_up_unsynced(engine: Sqlite3Engine, connection: Any) -> None:
    _set_up(engine, connection)
    connection.execute("PRAGMA synchronous = OFF;")


class Unsynced:
    """Modules are imported before the database is opened."""

    def __init__(self, config: object, api: object) -> None:
        del config, api


Sqlite3Engine.on_new_connection = _set_up_unsynced  # type: ignore[method-assign]

"""Another program's database, named as ours by mistake."""

from collections.abc import Iterable

from letta_matrix.store.faults import StoreError
from letta_matrix.store.schema import metadata

_SHOWN = 3
_VERSION = "alembic_version"


def check_tables(place: str, seen: Iterable[str], beside: Iterable[str]) -> None:
    """Look whether a database is ours, or nobody's yet: by the names of all tables that are
    `seen`, and of those that stand where ours would be made, `beside` them. What somebody has put
    there besides ours later does no harm.

    Raises:
        StoreError: it is another program's.
    """
    if {"meta", _VERSION} <= {*seen}:
        return
    others = sorted({*beside} - metadata.tables.keys() - {_VERSION})
    if not others:
        return
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    raise StoreError(
        f"{place}: another program keeps its tables there ({', '.join(others[:_SHOWN])}{more})",
        "name a database of the bridge's own in `database.url`",
    )

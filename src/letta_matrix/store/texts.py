"""A list of texts as rows, however many, in a statement that stays the same."""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import TableValuedAlias, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class _Each(FunctionElement[Any]):
    name = "each_text"
    inherit_cache = True


def rows_of(texts: Iterable[str]) -> TableValuedAlias:
    """To be selected from; the column is called `value`."""
    return _Each(literal(json.dumps(list(texts)))).table_valued("value")


@compiles(_Each)
def _in_sqlite(each: _Each, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(each.clauses, **options)})"


@compiles(_Each, "postgresql")
def _in_postgres(each: _Each, compiler: Any, **options: Any) -> str:
    given = compiler.process(each.clauses, **options)
    return f"json_array_elements_text(CAST({given} AS json))"

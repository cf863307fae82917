"""Lists that come in pages."""

from typing import Annotated

from pydantic import Field

Limit = Annotated[int, Field(ge=1, le=200, description="how many at most")]
After = Annotated[
    str | None, Field(max_length=1_000, description="`next` of an earlier answer, to go on")
]

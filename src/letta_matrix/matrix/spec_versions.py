"""Which versions of the specification a homeserver knows, by what it says itself."""

import re
from collections.abc import Collection

from mautrix.api import ClientPath, Method
from mautrix.errors import MatrixRequestError

from letta_matrix.common.json_fields import as_texts, mapping
from letta_matrix.matrix import answers
from letta_matrix.matrix.requests import HomeserverUnavailable, Requests


async def is_older(homeserver: Requests, least: str, flags: Collection[str]) -> bool:
    """Whether it says itself that it knows nothing of what came with version `least`, nor by one
    of the `flags` from before that. A worker, or a proxy, that does not pass something on knows
    nothing of it either; asked once, and no answer says no."""
    anybody, shape = homeserver.with_token(""), answers.having("versions", list)
    try:
        told = await anybody.request(Method.GET, ClientPath.versions, give_up_after=0, shape=shape)
    except (MatrixRequestError, HomeserverUnavailable):
        return False
    unstable = mapping(told.get("unstable_features"))
    return not speaks(as_texts(told["versions"]), least) and not any(map(unstable.get, flags))


def speaks(specs: Collection[str], least: str) -> bool:
    """Whether a homeserver that lists these versions of the specification knows what came with
    version `least`."""
    return any(_number(spec) >= _number(least) for spec in specs)


def _number(spec: str) -> tuple[int, ...]:
    match = re.fullmatch(r"v(\d{1,4})\.(\d{1,4})", spec)
    return (int(match[1]), int(match[2])) if match else (0,)

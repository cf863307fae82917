"""People's accounts at the homeserver, reached with what they themselves have given."""

from typing import Any

import aiohttp

from letta_matrix.matrix.events import mapping
from letta_matrix.matrix.route import Route

_TIMEOUT = aiohttp.ClientTimeout(total=20, sock_connect=5)


class Accounts:
    """The client-server API of the homeserver at `url`, in nobody's name of ours."""

    def __init__(self, url: str, route: Route) -> None:
        self._route = route
        self._url = f"{url.rstrip('/')}/_matrix/client/v3"

    async def ask(
        self, method: str, path: str, body: object = None, token: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of an answer; `token` is the person's own. Raises aiohttp.ClientError,
        TimeoutError."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession(connector=self._route.connector(), timeout=_TIMEOUT) as http,
            http.request(
                method, f"{self._url}/{path}", json=body, headers=headers, allow_redirects=False
            ) as response,
        ):
            try:
                return response.status, dict(mapping(await response.json(content_type=None)))
            except ValueError:
                return response.status, {}

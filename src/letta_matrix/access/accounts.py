"""People's accounts at the homeserver, reached with what they themselves have given."""

from typing import Any

import aiohttp

from letta_matrix.matrix import answers
from letta_matrix.matrix.route import Route

_TIMEOUT = aiohttp.ClientTimeout(total=20, sock_connect=5)


class NotOfMatrix(aiohttp.ClientError):
    """Somebody else answers in the homeserver's place: nothing is said about the person."""


class Accounts:
    """The client-server API of the homeserver at `url`, in nobody's name of ours."""

    def __init__(self, url: str, route: Route) -> None:
        self._route = route
        self._url = f"{url.rstrip('/')}/_matrix/client/v3"

    async def ask(
        self, method: str, path: str, body: object = None, token: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of an answer; `token` is the person's own. Raises aiohttp.ClientError
        (NotOfMatrix), TimeoutError."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url, options = f"{self._url}/{path}", {"json": body, "headers": headers}
        try:
            response, said = await self._route.ask(method, url, _TIMEOUT, **options)
        except answers.ForeignAnswer as error:
            raise NotOfMatrix(str(error)) from None
        answer = answers.parsed(said)
        refused = response.status != 200
        if answer is None or (refused and answers.text_of(answer, "errcode") is None):
            raise NotOfMatrix(answers.described(response, said))
        return response.status, dict(answer)

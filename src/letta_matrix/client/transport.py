"""Requests to the REST API, and what comes back."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp

from letta_matrix.client.errors import ApiError, ClientError, Unreachable
from letta_matrix.common.connections.unreached import why_unreached

Json = dict[str, Any]

_CONNECT = 10.0
_MARGIN = 30.0
"""Seconds that a request which waits may take besides."""

STREAMING = aiohttp.ClientTimeout(sock_connect=_CONNECT, sock_read=60.0)
"""An answer that takes as long as it takes; the API sends something every 15 seconds."""


class Transport:
    """Sends requests to `url` with a token, over one pooled session."""

    def __init__(self, url: str, token: str, timeout: float) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._seconds = timeout
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        wait: float = 0.0,
    ) -> Any:
        """The JSON object that an endpoint answers, empty for none, and perhaps only after so
        many seconds. Raises ClientError."""
        seconds = max(self._seconds, wait + _MARGIN if wait else 0.0)
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT)
        async with self.open(
            method, path, body, query=query, headers=headers, timeout=timeout
        ) as response:
            return _object(await response.read())

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """An answer whose body is still to be read. Raises ClientError, also while reading."""
        if self._session is None:
            self._session = aiohttp.ClientSession()
        sent = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        sent |= headers or {}
        params = {key: _text(value) for key, value in (query or {}).items() if value is not None}
        try:
            async with self._session.request(
                method,
                self._url + path,
                json=body,
                params=params,
                headers=sent,
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                if not 200 <= response.status < 300:
                    raise _error(response, await response.read())
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(f"{self._url} does not answer: {why_unreached(error)}") from error


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _object(data: bytes) -> Json:
    if not data:
        return {}
    try:
        answer: object = json.loads(data)
    except ValueError as error:
        raise ClientError("the answer is no JSON; is this letta-matrix's REST API?") from error
    if not isinstance(answer, dict):
        raise ClientError("the answer is no JSON object; is this letta-matrix's REST API?")
    return cast("Json", answer)


def _error(response: aiohttp.ClientResponse, data: bytes) -> ClientError:
    try:
        problem = _object(data)
    except ClientError:
        problem = {}
    detail = str(problem.get("detail") or f"HTTP {response.status} {response.reason or ''}".strip())
    slug = str(problem.get("type") or "").rpartition("/")[2]
    after = response.headers.get("Retry-After", "")
    return ApiError(response.status, slug, detail, float(after) if after.isdigit() else None)

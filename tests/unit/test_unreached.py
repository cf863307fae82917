"""Why a server is not reached: as libraries and the system say it, and as people are told."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable

import aiohttp
import httpx
import openai
import pytest
from tests.servers import free_port

from letta_matrix.common.connections.unreached import why_unreached

Ask = Callable[[str], Awaitable[object]]


async def by_aiohttp(url: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(url):
        pass


async def by_httpx(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        await http.get(url)


async def by_openai(url: str) -> None:
    plain = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(
        api_key="x", base_url=url, max_retries=0, http_client=plain
    ) as client:
        await client.models.list()


async def by_system(url: str) -> None:
    parts = httpx.URL(url)
    context = ssl.create_default_context() if parts.scheme == "https" else None
    reader, writer = await asyncio.open_connection(parts.host, parts.port, ssl=context)
    try:
        writer.write(b"?")
        assert await reader.readexactly(1)
    finally:
        writer.close()


ASKED = pytest.mark.parametrize("ask", [by_aiohttp, by_httpx, by_openai, by_system])


async def told(ask: Ask, url: str) -> str:
    """How it is worded that asking there failed."""
    with pytest.raises(Exception) as failed:  # noqa: PT011
        await ask(url)
    return why_unreached(failed.value)


@pytest.fixture
async def port() -> AsyncGenerator[int]:
    """Where somebody hangs up on whoever says something."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@ASKED
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_nothing_listens(ask: Ask, host: str) -> None:
    number = free_port()
    said = await told(ask, f"http://{host}:{number}/")
    assert said in {
        *(f"nothing listens at {one}:{number}" for one in ("127.0.0.1", "localhost", "[::1]")),
        "nothing listens there",
    }


@ASKED
async def test_somebody_hangs_up(ask: Ask, port: int) -> None:
    assert await told(ask, f"http://127.0.0.1:{port}/") == "the connection broke off"


@ASKED
async def test_tls_is_not_spoken_there(ask: Ask) -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answers, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert (await told(ask, url)).startswith("TLS is not spoken there as it has to be")


@ASKED
async def test_a_name_that_nobody_knows(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    assert await told(ask, "http://matrix.invalid/") in (
        "nobody knows the name matrix.invalid",
        "nobody knows its name",
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError(), "no answer came in time"),
        (
            aiohttp.ServerTimeoutError("Connection timeout to host http://x"),
            "no answer came in time",
        ),
        (httpx.ReadTimeout(""), "no answer came in time"),
        (ConnectionResetError(104, "Connection reset by peer"), "the connection broke off"),
        (OSError(113, "No route to host"), "no way leads there"),
        (aiohttp.ServerDisconnectedError(), "the connection broke off"),
        (
            aiohttp.ClientPayloadError("Response payload is not completed"),
            "the connection broke off",
        ),
        (aiohttp.ClientConnectionError("port 8008 is another program's"), "port 8008 is another"),
        (ValueError(), "no answer came in time"),
    ],
)
def test_what_libraries_say(error: Exception, said: str) -> None:
    assert why_unreached(error).startswith(said)


def test_a_certificate_that_is_not_accepted() -> None:
    error = ssl.SSLCertVerificationError(1, "verify failed")
    error.verify_message = "self-signed certificate"
    assert why_unreached(error) == "its certificate is not accepted: self-signed certificate"


def test_several_addresses_were_tried() -> None:
    text = "Multiple exceptions: [Errno {}] Connect call failed ('::1', 8008, 0, 0), "
    text += "[Errno 111] Connect call failed ('127.0.0.1', 8008)"
    assert why_unreached(OSError(text.format(111))) == "nothing listens at [::1]:8008"
    assert why_unreached(ExceptionGroup("all failed", [OSError(111, "no")])) == (
        "nothing listens there"
    )
    assert why_unreached(OSError("odd\nthings")) == "odd things"


@pytest.mark.parametrize("password", ["secret", "s@cret"])
def test_a_password_in_an_address_is_not_repeated(password: str) -> None:
    said = why_unreached(aiohttp.InvalidURL(f"http://user:{password}@x y"))
    assert said == "http://x y"
    assert why_unreached(ValueError("no such user: a@b")) == "no such user: a@b"


@pytest.mark.parametrize(
    ("text", "said"),
    [("its discovery document is of another issuer", ""), ("", "no answer came in time")],
)
def test_what_was_handled_before_is_told_only_where_nothing_else_is(text: str, said: str) -> None:
    error = ValueError(text)
    error.__context__ = TimeoutError()
    assert why_unreached(error) == (said or text)

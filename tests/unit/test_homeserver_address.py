"""Where requests to the homeserver go."""

from typing import Any, cast

import pytest
from mautrix.api import Method
from yarl import URL

from letta_matrix.matrix.api import Api, Request
from letta_matrix.matrix.server_clock import ServerClock


class Refused(Exception):
    """Nothing is asked."""


class Session:
    """Remembers what was to be asked for."""

    asked: URL | None = None

    def request(self, _method: str, url: URL, **_: Any) -> Any:
        self.asked = url
        raise Refused


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://m\u00fcnchen.example", "https://xn--mnchen-3ya.example"),
        ("http://127.0.0.1:8008/", "http://127.0.0.1:8008"),
        ("https://example.org/chat/matrix/", "https://example.org/chat/matrix"),
    ],
)
async def test_paths_stay_as_they_are_and_hosts_become_ascii(url: str, asked: str) -> None:
    session = Session()
    api = Api(url, "t", cast("Any", session), ServerClock())
    path = "_matrix/client/v3/rooms/%21a%2Fb%3Atest/join"
    with pytest.raises(Refused):
        await api.ask(Request(Method.GET, path, None, {}))
    assert session.asked is not None
    assert str(session.asked) == f"{asked}/{path}"


def test_what_an_api_shows_has_no_token_in_it() -> None:
    api = Api("http://127.0.0.1", "as-secret", cast("Any", Session()), ServerClock())
    assert "as-secret" not in repr(api)

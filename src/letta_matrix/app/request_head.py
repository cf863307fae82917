"""The head of an HTTP request, read by itself."""

from dataclasses import dataclass, field

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

Headers = list[tuple[bytes, bytes]]
"""Names, in small letters, and values: as in an ASGI scope."""


@dataclass
class RequestHead:
    """What a request says before its body. `path` has no query."""

    method: bytes = b""
    path: str = ""
    headers: Headers = field(default_factory=Headers)

    @property
    def reads(self) -> bool:
        """Whether it changes nothing, and has no body."""
        return self.method in (b"GET", b"HEAD")

    def on_url(self, url: bytes) -> None:
        self.path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


def read_head(data: bytes) -> RequestHead | None:
    """What a whole head says, None where it is none (RFC 9112 section 2)."""
    head = RequestHead()
    parser = HttpRequestParser(head)
    try:
        parser.feed_data(data)
    except HttpParserUpgrade:
        pass
    except HttpParserError:
        return None
    head.method = parser.get_method()
    head.path = head.path.partition("?")[0]
    return head

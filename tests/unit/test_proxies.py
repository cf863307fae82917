"""Who is behind a proxy, and whom nobody believes."""

import pytest

from letta_matrix.access.proxies import client_of

TRUSTED = ["10.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("1.2.3.4", ["9.9.9.9"], "1.2.3.4"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("::1", ["8.8.8.8, 9.9.9.9", "10.1.1.1"], "9.9.9.9"),
        ("10.0.0.1", ["9.9.9.9:443"], "9.9.9.9"),
        ("10.0.0.1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["9.9.9.9, unknown"], "unknown"),
        ("10.0.0.1", [" , "], "10.0.0.1"),
        ("", ["9.9.9.9"], ""),
    ],
)
def test_the_last_address_that_is_no_proxys_counts(
    peer: str, forwarded: list[str], client: str
) -> None:
    assert client_of(peer, forwarded, TRUSTED) == client
    assert client_of(peer, forwarded, []) == peer

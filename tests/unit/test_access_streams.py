"""How much a token may keep open at a time."""

import pytest

from letta_matrix.access.authenticator import TooOften
from letta_matrix.access.principal import Principal
from letta_matrix.access.streams import OpenStreams

ADA, EVE = Principal("token:ada", ""), Principal("token:eve", "")


def test_each_has_so_many_and_a_closed_one_makes_room() -> None:
    streams = OpenStreams(2, "streams")
    with streams.opened(ADA):
        with streams.opened(ADA):
            with pytest.raises(TooOften, match="has 2 streams open; close some") as refusal:
                streams.opened(ADA).__enter__()
            assert refusal.value.retry_after > 0
            with streams.opened(EVE):
                pass
        with pytest.raises(ValueError, match="broken"), streams.opened(ADA):
            raise ValueError("broken")
        with streams.opened(ADA):
            pass
    assert streams._open == {}

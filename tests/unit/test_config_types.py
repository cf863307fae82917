"""What settings may look like."""

import pytest
from pydantic import TypeAdapter, ValidationError

from letta_matrix.config.types import HttpAddress, WebSocketAddress


@pytest.mark.parametrize("user", ["ada:secret@", "ada@", ":secret@", "@"])
@pytest.mark.parametrize(("kind", "scheme"), [(HttpAddress, "https"), (WebSocketAddress, "wss")])
def test_an_address_holds_no_password(kind: type[str], scheme: str, user: str) -> None:
    address = f"{scheme}://example.org:1234/v1"
    adapter = TypeAdapter(kind)
    assert adapter.validate_python(address) == address
    with pytest.raises(ValidationError) as refused:
        adapter.validate_python(address.replace("://", f"://{user}"))
    (error,) = refused.value.errors()
    assert "no user name or password" in error["msg"]
    assert "secret" not in error["msg"]

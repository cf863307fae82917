"""What settings may look like."""

import pytest
from pydantic import TypeAdapter, ValidationError

from letta_matrix.config import AppServerRuntime
from letta_matrix.config.types import HttpAddress, ListenHost, Person, UserId, WebSocketAddress
from letta_matrix.config.yaml_text import parse
from letta_matrix.runtimes.keeper.upstream import websocket_url


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


@pytest.mark.parametrize(
    "user", ["@j\u00fcrgen:example.org", "@\u592a\u90ce:example.org", "@Ann:a"]
)
def test_people_with_historical_user_ids_may_be_named(user: str) -> None:
    for kind in (UserId, Person):
        assert TypeAdapter(kind).validate_python(user) == user


@pytest.mark.parametrize("user", ["@a b:example.org", "@a\x00:example.org", "@a\x85:a", "@:a"])
def test_what_no_user_id_has_is_refused(user: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(UserId).validate_python(user)


def test_a_name_may_end_with_the_dot_of_the_root() -> None:
    assert TypeAdapter(ListenHost).validate_python("bridge.internal.") == "bridge.internal."


def test_what_a_proxy_wants_to_know_goes_with_the_address_and_is_not_shown() -> None:
    given = {"type": "app_server", "url": "wss://agents.example.org/x/?key=secret/"}
    runtime = AppServerRuntime.model_validate(given)
    assert websocket_url(runtime.url) == "wss://agents.example.org/x/ws?key=secret/"
    assert "secret" not in runtime.server + runtime.address
    with pytest.raises(ValidationError):
        TypeAdapter(WebSocketAddress).validate_python("wss://agents.example.org/#x")


def test_several_sections_may_be_merged_into_one() -> None:
    text = "a: &a {x: 1}\nb: &b {y: 2}\nc:\n  <<: *a\n  <<: *b\n  z: 3"
    assert parse(text) == {"a": {"x": 1}, "b": {"y": 2}, "c": {"x": 1, "y": 2, "z": 3}}

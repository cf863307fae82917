"""What OAuth clients are told."""

from pathlib import Path

from tests.builders import config_for

from letta_matrix.access.metadata import (
    challenge,
    metadata_url,
    resource_metadata,
    resource_url,
    scope_challenge,
)
from letta_matrix.access.principal import Scope
from letta_matrix.access.refusals import Unauthorized

OIDC = {"issuer": "https://id.example/realm", "audience": "matrix"}


def test_a_resource_is_named_as_its_client_reaches_it() -> None:
    assert resource_url(None, "localhost:8016", "/mcp") == "http://localhost:8016/mcp"
    assert resource_url("https://m.org/x", "10.0.0.1", "/mcp") == "https://m.org/x/mcp"


def test_where_the_metadata_is() -> None:
    well_known = "https://m.org/.well-known/oauth-protected-resource"
    assert metadata_url("https://m.org/x/mcp") == f"{well_known}/x/mcp"
    assert metadata_url("https://m.org") == well_known
    assert metadata_url("https://m.org/") == well_known


def test_the_metadata_name_an_authorization_server_only_if_there_is_one(tmp_path: Path) -> None:
    plain = resource_metadata(config_for(tmp_path), "http://localhost:8016/mcp")
    assert plain == {
        "resource": "http://localhost:8016/mcp",
        "resource_name": "letta-matrix",
        "scopes_supported": ["read", "write", "rooms", "agents"],
        "bearer_methods_supported": ["header"],
    }
    with_issuer = resource_metadata(config_for(tmp_path, access={"oidc": OIDC}), "http://x/mcp")
    assert with_issuer["authorization_servers"] == ["https://id.example/realm"]


def test_challenges() -> None:
    nothing = Unauthorized("Send a token.", error="")
    assert challenge(nothing) == challenge(None) == "Bearer"
    assert challenge(nothing, "https://m.org/x") == 'Bearer resource_metadata="https://m.org/x"'
    wrong = Unauthorized('It says "no"\\\r\nX: é')
    assert challenge(wrong) == 'Bearer error="invalid_token", error_description="It says noX: "'
    assert scope_challenge(Scope.WRITE) == 'Bearer error="insufficient_scope", scope="write"'

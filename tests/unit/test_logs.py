"""Logs: one line a thing, and no secret in any of them."""

import json
import logging
from collections.abc import Generator
from pathlib import Path
from typing import Literal

import pytest
import structlog
from tests.builders import config_for

from letta_matrix.access.secrets import issue
from letta_matrix.config import Logging
from letta_matrix.logs import configure_logging, secrets_of


@pytest.fixture(autouse=True)
def _as_before() -> Generator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("kind", ["console", "json"])
def test_secrets_are_masked_wherever_they_stand(
    kind: Literal["console", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(Logging(format=kind), ["s3cret", ""])
    log = structlog.get_logger()
    log.info("with s3cret inside", value="s3cret", inner={"url": "http://x/?t=s3cret"})
    try:
        raise ValueError("no s3cret here")
    except ValueError as error:
        log.error("failed", exc_info=error)
    output = capsys.readouterr().err
    assert "s3cret" not in output
    assert output.count("[secret]") >= 4
    assert "ValueError" in output


def test_tokens_that_were_given_out_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Logging())
    text, token = issue(agent_id="", scopes=frozenset())
    structlog.get_logger().info("a defect", header=f"Bearer {text}", token=token.token_id)
    output = capsys.readouterr().err
    assert text not in output
    assert token.token_id in output


def test_json_lines_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Logging(format="json"))
    structlog.get_logger().warning("agent found", agent="agent-1")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["agent"]) == ("agent found", "warning", "agent-1")
    assert line["timestamp"].endswith("Z")


def test_the_level_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Logging(level="warning"))
    structlog.get_logger().info("not worth it")
    assert capsys.readouterr() == ("", "")


def test_mautrix_is_kept_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Logging(level="debug"))
    logging.getLogger("mau.http").error("body of a message")
    assert "body of a message" not in capsys.readouterr().err


def test_the_secrets_of_a_configuration() -> None:
    runtimes = [
        {"type": "app_server", "name": "a", "token": "runtime-token"},
        {"type": "app_server", "name": "b", "keeper_socket": "b.sock"},
        {"type": "memory"},
    ]
    config = config_for(Path(), runtimes=runtimes)
    assert secrets_of(config) == ["as-secret", "hs-secret", "runtime-token"]

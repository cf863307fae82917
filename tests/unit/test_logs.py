"""Logs: one line a thing, and no secret in any of them."""

import json
import logging
from pathlib import Path
from typing import Literal

import pytest
import structlog
from tests.builders import config_for
from tests.waiting import Clock, settled

from letta_matrix.access.secrets import issue
from letta_matrix.app.logs import configure_logging, secrets_of
from letta_matrix.common import log_repeats
from letta_matrix.config import Logging
from letta_matrix.store.faults import LeaseLost


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


@pytest.mark.parametrize("kind", ["console", "json"])
def test_nobody_writes_lines_of_ours_or_orders_to_a_terminal(
    kind: Literal["console", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(Logging(format=kind))
    forged = "\x1b[2J\x9b1m\u202e\r\n2026-01-01T00:00:00Z [info     ] all is well"
    log = structlog.get_logger()
    log.info("said", who=forged, which=forged.partition("\r")[0], where=[forged])
    log.info(forged)
    logging.getLogger("aiohttp").error(forged.replace("\n", ""))
    try:
        raise ValueError(forged)
    except ValueError as error:
        log.error("failed", exc_info=error)
    lines = capsys.readouterr().err.split("\n")
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("2026-01-01") for line in lines)
    assert len([line for line in lines if line[:1] not in ("", " ", "T")]) == 4


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


async def test_a_fault_that_repeats_itself_is_said_once_with_a_count(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    configure_logging(Logging(format="json"))
    log = structlog.get_logger()
    clock.stop()
    for _ in range(1_000):
        log.warning("no descriptors", port=1)
        log.error("failed", exc_info=ValueError("no"))
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["no descriptors", "failed"]
    clock.advance(log_repeats.SPAN)
    await settled()
    counts = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["repeated"]) for line in counts] == [
        ("no descriptors", 999),
        ("failed", 999),
    ]
    assert counts[0]["port"] == 1
    log.warning("no descriptors", port=1)
    assert "repeated" not in capsys.readouterr().err


async def test_nothing_fills_the_log_whatever_is_in_its_lines(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    configure_logging(Logging(format="json"))
    log = structlog.get_logger()
    clock.stop()
    for number in range(5_000):
        log.info("a request was refused", peer=number)
    assert len(capsys.readouterr().err.splitlines()) == log_repeats.OF_A_KIND
    for number in range(5_000):
        log.warning(f"fault {number}")
    assert len(capsys.readouterr().err.splitlines()) == log_repeats.IN_ALL
    clock.advance(log_repeats.SPAN)
    log.info("later")
    last = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line.get("repeated") for line in last][-1] is None
    assert last[0]["repeated"] == 5_000 - log_repeats.OF_A_KIND
    assert any(line["event"] == log_repeats._TOO_MUCH for line in last)


def test_libraries_write_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Logging(), ["s3cret"])
    library = logging.getLogger("asyncio")
    # Whatever other tests, or what they import, have made of it.
    library.disabled, library.propagate = False, True
    library.setLevel(logging.NOTSET)
    logging.disable(logging.NOTSET)
    for number in range(500):
        try:
            raise OSError(24, "Too many open files")
        except OSError:
            text = f"socket.accept() out of system resource\nsocket: {number} s3cret"
            library.exception(text)
    output = capsys.readouterr().err
    assert output.count("\n") == 1
    assert "out of system resource" in output
    assert "Too many open files" in output
    library.error("a defect with s3cret", exc_info=ValueError("here"))
    output = capsys.readouterr().err
    assert "ValueError: here" in output
    assert "s3cret" not in output


def test_what_tells_by_itself_what_is_wrong_has_no_stack(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(Logging())
    structlog.get_logger().error("not done", exc_info=LeaseLost())
    logging.getLogger("asyncio").error("Task exception", exc_info=LeaseLost())
    output = capsys.readouterr().err
    assert output.count("\n") == 2
    assert output.count("another replica has taken over") == 2


def test_what_is_being_handled_has_no_stack_either_and_a_reason_stays(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(Logging())
    try:
        raise LeaseLost
    except LeaseLost as error:
        structlog.get_logger().exception("not done")
        structlog.get_logger().error("not kept", reason="the disk", exc_info=error)
    first, second = capsys.readouterr().err.splitlines()
    assert "another replica has taken over" in first
    assert "the disk" in second
    assert "another replica" not in second

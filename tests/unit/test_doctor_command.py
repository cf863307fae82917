"""`letta-matrix doctor` as people and scripts see it."""

import asyncio
import io
import json
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from tests.builders import config_for
from tests.fake_app_server import FakeAppServer
from tests.servers import free_port
from tests.unit.test_docs import codes, rows, section, text_of
from tests.waiting import Clock, eventually, within
from typer.testing import CliRunner

from letta_matrix.cli.commands import app
from letta_matrix.cli.doctor import network, runtimes
from letta_matrix.cli.doctor.catalogue import CHECKS
from letta_matrix.cli.doctor.check import PATIENCE, Check, Look
from letta_matrix.cli.doctor.examination import examine
from letta_matrix.cli.doctor.finding import (
    Finding,
    Findings,
    Mark,
    exit_status,
    fine,
    trouble,
    unknown,
    warning,
)
from letta_matrix.cli.doctor.subject import Subject
from letta_matrix.cli.doctor.view import TerminalView, report
from letta_matrix.common.connections.listener import bound
from letta_matrix.common.lock_files import lock
from letta_matrix.runtimes.keeper import wire
from letta_matrix.runtimes.keeper.doors import RemoteDoor
from letta_matrix.runtimes.keeper.process import keep
from letta_matrix.runtimes.keeper.server import Keeper, Target
from letta_matrix.store.database import database_url

Json = dict[str, Any]


def finding_by(*findings: Finding) -> Look:
    async def look(_: Subject) -> Findings:
        return list(findings)

    return look


@contextmanager
def bridge_at(directory: Path) -> Generator[None]:
    """A bridge has the database of a configuration there open."""
    url = database_url(config_for(directory).database.url, directory)
    file = lock(Path(f"{url.database}.lock"))
    assert file is not None
    with file:
        yield


async def examined(
    directory: Path, checks: Sequence[Check], report: Json | None = None, **sections: Any
) -> list[Finding]:
    config = config_for(directory, **sections)
    subject = Subject(config, directory / "config.yaml", {}, report)
    try:
        return [one async for one in examine(subject, checks)]
    finally:
        await subject.close()


async def believes(directory: Path) -> bool:
    """Whether what answers at `api.port` is taken for the bridge."""
    (found,) = await examined(directory, [network.bridge], {"version": "1", "status": "ok"})
    assert (found.mark is Mark.OK) is not ("another program answers" in found.says)
    return found.mark is Mark.OK


async def test_whoever_else_answers_at_the_port_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = {os.getuid()}

    def listeners(_: int) -> set[int]:
        return users

    monkeypatch.setattr("letta_matrix.cli.doctor.subject.listeners", listeners)
    assert not await believes(tmp_path)
    with bridge_at(tmp_path):
        assert await believes(tmp_path)
        users.add(os.getuid() + 1)
        assert not await believes(tmp_path)


async def test_a_bridge_on_a_server_is_known_by_its_user_though_its_configuration_is_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge, others = 10_001, 10_002
    users = {bridge}

    def listeners(_: int) -> set[int]:
        return users

    monkeypatch.setattr("letta_matrix.cli.doctor.subject.listeners", listeners)
    monkeypatch.setattr("letta_matrix.cli.doctor.subject.os.getuid", lambda: bridge)
    (tmp_path / "config.yaml").touch()
    report: Json = {"version": "1", "status": "ok"}
    at_server = {"url": "postgresql://127.0.0.1/bridge"}
    (found,) = await examined(tmp_path, [network.bridge], report, database=at_server)
    assert found.mark is Mark.OK
    users.add(others)
    (found,) = await examined(tmp_path, [network.bridge], report, database=at_server)
    assert "another program answers" in found.says


async def test_a_keeper_in_another_container_is_known_by_its_lock(tmp_path: Path) -> None:
    async def looked() -> Finding:
        server = {"type": "app_server", "url": "ws://127.0.0.1:9", "keeper_socket": "k.sock"}
        (found,) = await examined(tmp_path, [runtimes.keeper], runtimes=[server])
        return found

    socket, ended = tmp_path / "k.sock", asyncio.Event()
    # There it is somebody, here nobody has the number.
    (tmp_path / "k.sock.pid").write_text(f"{2**22 + 1}")
    held = lock(tmp_path / "k.sock.lock")
    assert held is not None
    with held:
        silent = await looked()
        assert (silent.mark, "hangs" in silent.says) == (Mark.TROUBLE, True)
        assert ".pid" not in silent.remedy
        keeper = asyncio.create_task(keep(socket, 600, 100, ended))
        await eventually(socket.exists)
        assert "it runs" in (await looked()).says
        ended.set()
        await within(keeper)
        socket.unlink(missing_ok=True)
    assert "does not run" in (await looked()).says


async def test_a_keeper_elsewhere_is_asked_what_it_reaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, ended = free_port(), asyncio.Event()
    (tmp_path / "token").write_text("x" * 40)
    (tmp_path / "token").chmod(0o600)
    place = {"keeper": f"127.0.0.1:{port}", "keeper_token_file": "token"}

    async def looked() -> dict[str, Finding]:
        found = await examined(
            tmp_path,
            [runtimes.keeper, runtimes.runtimes],
            runtimes=[{"type": "app_server", **place}],
        )
        return {one.name: one for one in found}

    async def said(mark: Mark, keeper: str, runtime: str) -> None:
        found = await looked()
        assert found["keeper"].says.startswith(f"the keeper at 127.0.0.1:{port} {keeper}")
        assert runtime in found["runtime local"].says
        assert {one.mark for one in found.values()} == {mark}

    await said(Mark.TROUBLE, "cannot be reached: nothing listens at ", "cannot be reached")
    async with FakeAppServer() as server:
        target = Target(server.url)
        keeper = Keeper(1_000, lambda _: None, ended.set)
        await keeper.aim(target)
        door = RemoteDoor(keeper, "x" * 40, target)
        door.listen(bound("127.0.0.1", port))
        await eventually(lambda: keeper.status()["up"])
        await said(Mark.OK, "answers, and knows our token", "is there; tools ask: strict")
        (tmp_path / "token").write_text("y" * 40)
        await said(Mark.TROUBLE, "does not take our token", "does not take our token")
        (tmp_path / "token").write_text("x" * 40)
        (tmp_path / "token").chmod(0o640)
        assert "is not for its owner alone" in (await looked())["keeper"].says
        (tmp_path / "token").chmod(0o600)
        monkeypatch.setattr(wire, "versions", lambda: {"protocol": 9, "version": "9.0"})
        await said(Mark.TROUBLE, "is of letta-matrix 9.0 (protocol 9)", "upgrade the older")
        monkeypatch.undo()
    await eventually(lambda: not keeper.status()["up"])
    found = (await looked())["runtime local"]
    assert "does not reach its App Server" in found.says
    await door.close()
    await keeper.close()


async def test_a_runtime_that_hangs_is_named_though_it_may_be_asked_for_as_long_as_a_check_takes(
    tmp_path: Path, clock: Clock
) -> None:
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    hangs: Json = {"type": "letta_api", "name": "cloud", "url": f"http://127.0.0.1:{port}"}
    hangs["request_timeout"] = PATIENCE
    clock.stop()
    looking = asyncio.create_task(
        examined(tmp_path, [runtimes.runtimes], runtimes=[hangs, {"type": "memory"}])
    )
    await within(asked.wait())
    clock.advance(runtimes._PATIENCE)
    first, second = await within(looking)
    assert (first.name, first.mark) == ("runtime cloud", Mark.TROUBLE)
    assert "it hangs" in first.says
    assert (second.name, second.mark) == ("runtime memory", Mark.OK)
    server.close()
    await within(server.wait_closed())


async def test_what_needs_another_thing_is_looked_at_only_where_that_is_well(
    tmp_path: Path,
) -> None:
    bad = Check("a", "dark", finding_by(trouble("it is out", "light it")))
    below = Check("b", "", finding_by(fine("never")), needs=("a",))
    further = Check("c", "", finding_by(fine("never")), needs=("b",))
    found = await examined(tmp_path, [bad, below, further])
    assert found[0] == Finding("it is out", Mark.TROUBLE, "dark", "light it", "a")
    assert [one.mark for one in found[1:]] == [Mark.UNKNOWN] * 2
    assert found[1].says == "not looked at, as `a` is not well"


async def test_a_defect_of_one_check_hides_no_other(tmp_path: Path) -> None:
    async def broken(_: Subject) -> Findings:
        raise KeyError("as-secret")

    found = await examined(
        tmp_path, [Check("a", "", broken), Check("b", "", finding_by(fine("well")))]
    )
    assert [one.mark for one in found] == [Mark.UNKNOWN, Mark.OK]
    assert "KeyError" in found[0].says
    # Whatever it was that came along.
    assert "as-secret" not in found[0].says
    assert exit_status(found) == 2


async def test_what_a_running_bridge_says_is_told_in_its_words_and_once(tmp_path: Path) -> None:
    def told(name: str, says: str, state: str = "trouble") -> Json:
        return {"name": name, "state": state, "says": says, "remedy": f"cure {says}"}

    health: Json = {
        "checks": [
            told("clock", "it is late"),
            told("space", "it is empty", "warning"),
            told("runtime local", "it is away"),
            told("database", "", "ok"),
            "nonsense",
        ]
    }
    looked = finding_by(trouble("it is late", "another cure"))
    checks = [
        Check("clock", "old news", looked, vital="clock"),
        Check("runtimes", "silence", finding_by(fine("here")), vital="runtime "),
        Check("database", "", finding_by(fine("it is there")), vital="database"),
    ]
    with bridge_at(tmp_path):
        found = await examined(tmp_path, checks, health)
    assert [(one.name, one.mark, one.says, one.remedy, one.shows) for one in found] == [
        ("clock", Mark.TROUBLE, "it is late", "cure it is late", "old news"),
        ("runtime local", Mark.TROUBLE, "it is away", "cure it is away", "silence"),
        ("runtimes", Mark.OK, "here", "", ""),
        ("database", Mark.OK, "it is there", "", ""),
        ("space", Mark.WARNING, "it is empty", "cure it is empty", ""),
    ]


def test_the_exit_status_tells_how_bad_it_is() -> None:
    well, odd, bad, dark = fine("a"), warning("b", "c"), trouble("d", "e"), unknown("f")
    assert exit_status([well, odd]) == 0
    assert exit_status([well, odd, dark]) == 2
    assert exit_status([dark, bad, odd]) == 1
    assert report([bad])["status"] == "trouble"


def test_people_see_what_is_wrong_how_it_shows_and_what_to_do() -> None:
    out = io.StringIO()
    view = TerminalView(Console(file=out, width=100))
    view.show(fine("it is there", "disk"))
    view.show(trouble("it is \x1b[31mout", "light it", shows="it is dark", name="lamp"))
    view.show(unknown("not looked at, as `lamp` is not well", name="book"))
    view.show(unknown("not looked at, as `lamp` is not well", name="map"))
    view.show(fine("said by another program", "la\x1b[2J"))
    view.end()
    shown = [line.rstrip() for line in out.getvalue().splitlines()]
    assert shown[0] == "✓ disk               it is there"
    assert shown[1].startswith("✗ lamp               it is ")
    assert "\x1b" not in out.getvalue()
    assert shown[2].strip() == "shows as: it is dark"
    assert shown[3].strip() == "what to do: light it"
    assert shown[4].startswith("✓ la")
    assert shown[5].startswith(
        "? 2 checks           not looked at, as `lamp` is not well: book, map"
    )
    assert shown[-1] == "1 in trouble, 2 not looked at, 2 well"


def test_a_path_that_is_longer_than_a_line_is_shown_whole() -> None:
    out, path = io.StringIO(), "/srv/" + "letta-matrix/" * 10
    TerminalView(Console(file=out, width=80)).show(fine(path))
    assert path in "".join(line.strip(" ✓") for line in out.getvalue().splitlines())


def test_nothing_is_wrapped_where_it_is_not_for_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = "/srv/" + "letta matrix/" * 30
    TerminalView().show(trouble(path, f"make {path}", shows="none", name="disk"))
    shown = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    left = " " * 21
    assert shown == [
        f"✗ {'disk':18} {path}",
        f"{left}shows as: none",
        f"{left}what to do: make {path}",
    ]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    file = tmp_path / "config.yaml"
    settings: Json = {
        "homeserver": {"url": "http://127.0.0.1:9", "domain": "localhost"},
        "appservice": {"as_token": "as-secret-token", "hs_token": "hs-secret-token"},
        "permissions": {"localhost": "user"},
        "runtimes": [{"type": "memory"}],
        # Nobody listens there.
        "api": {"port": 9},
    }
    file.write_text(yaml.safe_dump(settings))
    file.chmod(0o600)
    return file


def typed(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", *arguments])
    return result.exit_code, result.stdout


def test_scripts_get_json(config_file: Path) -> None:
    status, out = typed("-c", str(config_file), "--json")
    told = json.loads(out)
    assert (status, told["status"]) == (1, "trouble")
    by_name = {one["check"]: one for one in told["findings"]}
    assert by_name["configuration"]["state"] == "ok"
    away = by_name["homeserver"]
    assert (away["state"], "does not answer" in away["says"]) == ("trouble", True)
    assert away["shows"]
    assert away["remedy"]
    assert by_name["reachability"]["state"] == "unknown"
    assert "secret" not in out


def test_a_configuration_that_cannot_be_used(config_file: Path) -> None:
    config_file.write_text("homeserver: {url: 'http://127.0.0.1:9', domian: localhost}\n")
    status, out = typed("-c", str(config_file), "--json")
    (found,) = json.loads(out)["findings"]
    assert status == 2
    assert "homeserver.domain" in found["says"]
    status, out = typed("--data", str(config_file.parent))
    assert (status, "✗ configuration" in out) == (2, True)


def test_every_check_is_documented() -> None:
    listed = rows(section(text_of("how-to/doctor.md"), "## What it looks at"))[1:]
    assert [codes(row[0])[0] for row in listed] == [one.name for one in CHECKS]

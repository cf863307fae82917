"""`letta-matrix up`, for real: one stack, started once, looked at from all sides."""

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import sqlite3
import stat
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.doc_commands import OF_SYNAPSE
from tests.integration.people import Person
from tests.servers import children_of, free_offset, is_running
from tests.squatter import UID, squatting
from tests.typed_pages import PAGES, Folder
from tests.waiting import eventually, within

from letta_matrix.stack import confine
from letta_matrix.stack.bridge_config import PID_FILES
from letta_matrix.stack.ports import Ports


@dataclass
class Up:
    """A running `letta-matrix up`."""

    data: Path
    offset: int
    process: asyncio.subprocess.Process | None = None

    @property
    def output(self) -> str:
        return (self.data.parent / "up.log").read_text()

    @property
    def state(self) -> dict[str, Any]:
        return json.loads((self.data / "stack.json").read_text())

    async def start(self) -> None:
        """Start it and wait for the table."""
        log = self.data.parent / "up.log"
        environment = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
        with log.open("wb") as file:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "letta_matrix", "up"),
                *("--data", str(self.data), "--port-offset", str(self.offset)),
                stdout=file,
                stderr=file,
                env={**environment, "HOME": str(self.data.parent / "empty-home")},
            )
        await eventually(self._is_ready_or_ended)
        assert self.process.returncode is None, self.output

    def _is_ready_or_ended(self) -> bool:
        ended = self.process is not None and self.process.returncode is not None
        return ended or "Ctrl-C stops everything" in self.output

    async def stop(self, number: signal.Signals) -> None:
        """Signal it, and wait until it has ended."""
        assert self.process is not None
        self.process.send_signal(number)
        await within(self.process.wait())


async def _letta_matrix(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "letta_matrix", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await within(process.communicate())
    return process.returncode or 0, out.decode(), err.decode()


async def _asked(stack: Up, http: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    """What the REST API tells whoever has the token of `stack.json`."""
    door = stack.state["api"]
    headers = {"Authorization": f"Bearer {door['token']}"}
    async with http.get(f"{door['url']}/api/v1/{path}", headers=headers) as response:
        assert response.status == 200
        return await response.json()


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Up]:
    """The stack of this file's tests, which run in order."""
    up = Up(tmp_path_factory.mktemp("up") / "data", free_offset())
    try:
        await up.start()
        yield up
    finally:
        if up.process is not None and up.process.returncode is None:
            await up.stop(signal.SIGTERM)


async def test_the_state_is_for_scripts(stack: Up) -> None:
    ports = Ports.with_offset(stack.offset)
    state = stack.state
    assert state["homeserver"] == {
        "url": f"http://127.0.0.1:{ports.synapse}",
        "server_name": "localhost",
    }
    assert state["users"]["admin"]["user_id"] == "@admin:localhost"
    assert state["appservice"]["url"] == f"http://127.0.0.1:{ports.appservice}"
    token = (stack.data / "admin.token").read_text().strip()
    assert state["api"] == {"url": f"http://127.0.0.1:{ports.api}", "token": token}
    assert state["mcp"] == {
        "url": f"http://127.0.0.1:{ports.mcp}/mcp",
        "ws_url": f"ws://127.0.0.1:{ports.mcp_websocket}/mcp",
        "token": token,
    }
    assert state["chat"] == {"url": f"http://127.0.0.1:{ports.api}/chat"}
    secret = (stack.data / "app-server.token").read_text().strip()
    assert state["app_server"] == {"url": f"ws://127.0.0.1:{ports.app_server}", "token": secret}
    assert {"bridge", "keeper", "synapse", "app_server"} <= set(state["pids"])
    for key, name in PID_FILES.items():
        assert (stack.data / name).read_text().split()[0] == str(state["pids"][key])
    assert all(is_running(pid) for pid in state["pids"].values())


async def test_secrets_are_for_their_owner_alone(stack: Up) -> None:
    assert stat.S_IMODE(stack.data.stat().st_mode) == 0o700
    names = ("stack.json", "config.yaml", "registration.yaml", "admin.password", "admin.token")
    names += ("app-server.token", "demo-model.key")
    assert {stat.S_IMODE((stack.data / name).stat().st_mode) for name in names} == {0o600}
    # Of what is further down nobody else sees anything.
    open_ = {path.name for path in stack.data.iterdir() if path.lstat().st_mode & 0o077}
    assert open_ <= {"keeper.sock"}


async def test_no_port_answers_who_has_no_secret(stack: Up, http: aiohttp.ClientSession) -> None:
    ports = Ports.with_offset(stack.offset)
    app_server = f"http://127.0.0.1:{ports.app_server}"
    demo = f"http://127.0.0.1:{ports.demo_model}/v1"
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await http.ws_connect(f"{app_server}/ws", headers=headers)
        for url in (f"{app_server}/app-server-info", f"{demo}/models"):
            async with http.get(url, headers=headers) as response:
                assert response.status == 401
        async with http.post(f"{demo}/chat/completions", json={}, headers=headers) as response:
            assert response.status == 401
    known = {"Authorization": f"Bearer {stack.state['app_server']['token']}"}
    async with http.ws_connect(f"{app_server}/ws", headers=known) as socket:
        assert not socket.closed


@pytest.mark.skipif(not confine.version(), reason="this kernel has no Landlock")
def test_the_agents_are_confined(stack: Up) -> None:
    """tests/security looks at what that means."""
    status = Path(f"/proc/{stack.state['pids']['app_server']}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    environment = Path(f"/proc/{stack.state['pids']['app_server']}/environ").read_text()
    names = {one.partition("=")[0] for one in environment.split("\0")}
    names = {name for name in names if not name.startswith("GIT_CONFIG_")}
    assert not [name for name in names if "KEY" in name or "TOKEN" in name or name == "MAKEFLAGS"]


async def test_the_table_says_how_to_log_in(stack: Up, http: aiohttp.ClientSession) -> None:
    human = stack.state["users"]["admin"]
    assert human["password"] in stack.output
    assert "created the agents Meridian and Ada" in stack.output
    link = re.search(r"http://127\.0\.0\.1:\d+/chat#token=(\S+)", stack.output)
    assert link is not None
    browser = {"Accept": "text/html,*/*"}
    async with http.get(stack.state["api"]["url"], headers=browser) as response:
        assert response.status == 200
        assert str(response.url) == stack.state["chat"]["url"]
    url = f"{stack.state['homeserver']['url']}/_matrix/client/v3/login"
    async with http.post(url, json={"type": "m.login.token", "token": link[1]}) as response:
        assert (await response.json())["user_id"] == human["user_id"]


async def test_guesses_at_a_password_are_limited(stack: Up, http: aiohttp.ClientSession) -> None:
    url = f"{stack.state['homeserver']['url']}/_matrix/client/v3/login"
    guess = {"identifier": {"type": "m.id.user", "user": "nobody"}, "password": "x"}
    statuses: list[int] = []
    while 429 not in statuses and len(statuses) < 1_000:
        async with http.post(url, json={"type": "m.login.password", **guess}) as response:
            statuses.append(response.status)
    assert statuses[:5] == [403] * 5
    assert statuses[-1] == 429


async def test_the_token_opens_the_rest_api(stack: Up, http: aiohttp.ClientSession) -> None:
    door = stack.state["api"]
    assert door["token"] not in stack.output
    assert str(stack.data / "admin.token") in "".join(stack.output.split())
    tokens = (await _asked(stack, http, "tokens"))["tokens"]
    assert [one["label"] for one in tokens] == ["letta-matrix up"]


def test_everything_is_bound_to_loopback(stack: Up) -> None:
    ports = Ports.with_offset(stack.offset)
    ours = {f"{port:04X}" for port in (ports.synapse, ports.appservice, ports.api)}
    ours |= {f"{port:04X}" for port in (ports.app_server, ports.demo_model)}
    ours |= {f"{port:04X}" for port in (ports.mcp, ports.mcp_websocket)}
    bound: set[str] = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, port = line.split()[1].split(":")
        if port in ours and line.split()[3] == "0A":
            bound.add(address)
            ours.discard(port)
    assert bound == {"0100007F"}
    assert not ours


async def test_a_second_stack_is_refused(stack: Up, tmp_path: Path) -> None:
    same_data = _letta_matrix("up", "--data", str(stack.data), "--port-offset", "35000")
    same_ports = _letta_matrix("up", "--data", str(tmp_path), "--port-offset", str(stack.offset))
    in_use, taken = await asyncio.gather(same_data, same_ports)
    assert (in_use[0], taken[0]) == (1, 1)
    assert "is in use by another `letta-matrix up`" in in_use[2]
    assert f"port {Ports.with_offset(stack.offset).synapse} (Synapse)" in taken[2]
    assert taken[2].count("\n") == 1


async def test_it_is_backed_up_while_it_runs(stack: Up, tmp_path: Path) -> None:
    file, secret, there = tmp_path / "b", tmp_path / "secret", tmp_path / "there"
    secret.write_text("a passphrase\n")
    words = (str(file), "--passphrase-file", str(secret), "--data")
    status, out, err = await _letta_matrix("backup", *words, str(stack.data))
    assert status == 0, err
    assert "read back and whole" in out
    status, _, err = await _letta_matrix("restore", *words, str(there))
    assert status == 0, err
    kept = {"admin.password", "synapse/signing.key", "synapse/homeserver.db.whole"}
    kept |= {
        str(path.relative_to(stack.data))
        for path in (stack.data / "letta/.letta").rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert len(kept) > 5
    assert {name for name in kept if not (there / name).is_file()} == set()
    with contextlib.closing(sqlite3.connect(there / "synapse/homeserver.db")) as database:
        users = {name for (name,) in database.execute("SELECT name FROM users")}
    assert {"@admin:localhost", "@letta:localhost"} <= users


async def test_an_agent_answers_in_the_terminal(stack: Up) -> None:
    data = ("--data", str(stack.data))
    status, out, err = await _letta_matrix("chat", "meridian", "hello from the test", *data)
    assert status == 0, err
    assert "> hello from the test" in out
    assert "no language model" in out
    assert "▍" not in out


async def test_status_and_agents(stack: Up) -> None:
    data = ("--json", "--data", str(stack.data))
    (status, health, err), (_, listed, _) = await asyncio.gather(
        _letta_matrix("status", *data), _letta_matrix("agents", *data)
    )
    assert status == 0, err
    assert json.loads(health)["ready"] is True
    agents = json.loads(listed)
    assert {agent["name"] for agent in agents} == {"Meridian", "Ada"}
    assert all(agent["room_id"] for agent in agents)


async def test_a_script_says_how_to_answer_what_it_does_not_wait_for(
    stack: Up, http: aiohttp.ClientSession
) -> None:
    data = ("--data", str(stack.data))
    status, _, err = await _letta_matrix("chat", "Ada", "use Bash: touch x", *data)
    assert status == 1
    told = re.search(r"`[^`]*' --data \S+` and `([^`]*'!deny \w+' --data \S+)` give one", err)
    assert told, err
    status, denied, _ = await _letta_matrix(*shlex.split(told[1])[-5:])
    assert (status, "denied" in denied) == (0, True)
    assert (await _asked(stack, http, "approvals"))["approvals"] == []


def test_a_start_without_trouble_warns_of_nothing(stack: Up) -> None:
    log = (stack.data / "bridge.log").read_text()
    assert "warning" not in log


async def test_a_killed_keeper_comes_back_and_is_announced(stack: Up) -> None:
    before = stack.state["pids"]["keeper"]
    os.kill(before, signal.SIGKILL)
    await eventually(lambda: stack.state["pids"]["keeper"] != before)
    await eventually(lambda: "keeper ended; the bridge has started it again" in stack.output)


async def _kill(stack: Up, http: aiohttp.ClientSession, child: str) -> None:
    """SIGKILL, and see it come back; nobody who lurks gets its port meanwhile."""
    heard = stack.data.parent / "heard"
    async with squatting(_port(stack, child), heard, "SO_REUSEPORT", lurks=True) as squatter:
        before = stack.state["pids"][child]
        os.kill(before, signal.SIGKILL)
        await eventually(lambda: stack.state["pids"][child] != before)
        assert "ended (SIGKILL); starting it again now" in stack.output
        await _is_back(stack, http, child)
        await eventually(lambda: "is up again (" in stack.output)
        assert not squatter.listens


def _port(stack: Up, child: str) -> int:
    return getattr(Ports.with_offset(stack.offset), "api" if child == "bridge" else child)


async def _is_back(stack: Up, http: aiohttp.ClientSession, child: str) -> None:
    state = stack.state
    urls = {
        "bridge": f"{state['api']['url']}/ready",
        "synapse": f"{state['homeserver']['url']}/health",
        "app_server": state["app_server"]["url"].replace("ws://", "http://") + "/readyz",
    }

    async def is_back() -> bool:
        try:
            async with http.get(urls[child]) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    await eventually(is_back, what=f"{child} is back")


async def test_a_killed_bridge_comes_back(stack: Up, http: aiohttp.ClientSession) -> None:
    await _kill(stack, http, "bridge")
    assert is_running(stack.state["pids"]["keeper"])


async def test_a_killed_app_server_comes_back_when_a_squatter_has_gone(
    stack: Up, http: aiohttp.ClientSession
) -> None:
    """Its port is free for a moment; who takes it is told nothing."""
    heard, port = stack.data.parent / "heard", _port(stack, "app_server")

    async def is_told() -> bool:
        async with http.get(f"{stack.state['api']['url']}/health") as response:
            return f"port {port} was taken by another program (uid {UID})" in await response.text()

    async with squatting(port, heard, lurks=True) as squatter:
        os.kill(stack.state["pids"]["app_server"], signal.SIGKILL)
        await eventually(lambda: squatter.listens)
        await eventually(is_told)
        assert squatter.heard == ""
    await _is_back(stack, http, "app_server")
    assert is_running(stack.state["pids"]["keeper"])


async def test_a_new_link_is_made_once_a_minute(stack: Up, http: aiohttp.ClientSession) -> None:
    """By a homeserver that comes back and has forgotten when it made the last one."""
    await _kill(stack, http, "synapse")
    assert is_running(stack.state["pids"]["keeper"])
    status, out, err = await _letta_matrix("link", "--data", str(stack.data))
    assert status == 0, err
    page, _, token = out.strip().partition("#token=")
    assert page == stack.state["chat"]["url"]
    url = f"{stack.state['homeserver']['url']}/_matrix/client/v3/login"
    async with http.post(url, json={"type": "m.login.token", "token": token}) as response:
        assert response.status == 200

    async def refusal() -> str:
        return (await _letta_matrix("link", "--data", str(stack.data)))[2]

    refused = await eventually(refusal)
    told = r"letta-matrix: no link this time: Synapse makes one a minute; the next one in \d+ s\n"
    assert re.fullmatch(told, refused)


async def test_what_the_documentation_has_people_type_works(
    stack: Up, http: aiohttp.ClientSession, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    folders = [Folder(tmp_path / Path(page.name).name, stack.data, stack.offset) for page in PAGES]
    typed = [folder.run(page) for folder, page in zip(folders, PAGES, strict=True)]
    answering = asyncio.create_task(_answer_the_question(stack, http))
    said = await asyncio.gather(*typed)
    await within(answering)
    for page, text in zip(PAGES, said, strict=True):
        with subtests.test(page=page.name):
            assert [one for one in page.shows if one not in text] == [], text


async def test_the_documentation_knows_where_synapse_is_told_what(
    stack: Up, http: aiohttp.ClientSession
) -> None:
    for method, path in OF_SYNAPSE:
        url = f"{stack.state['homeserver']['url']}{path}"
        async with http.request(method, url, json={}) as response:
            assert (await response.json())["errcode"] not in ("M_UNRECOGNIZED", "M_NOT_FOUND"), path


async def _answer_the_question(stack: Up, http: aiohttp.ClientSession) -> None:
    """The one that docs/how-to/rest.md has a program ask."""
    human = stack.state["users"]["admin"]
    url = f"{stack.state['homeserver']['url']}/_matrix/client/v3"
    who = {"type": "m.id.user", "user": human["user_id"]}
    password = {"type": "m.login.password", "identifier": who, "password": human["password"]}

    async def logged_in() -> str:
        async with http.post(f"{url}/login", json=password) as response:
            return (await response.json()).get("access_token", "")

    where = stack.state["homeserver"]["url"]
    admin = Person(http, where, human["user_id"], await eventually(logged_in))
    listed = (await _asked(stack, http, "agents"))["agents"]
    room_id = next(one["room_id"] for one in listed if one["name"] == "Meridian")

    async def asked() -> bool:
        events = (await admin.get(f"/rooms/{room_id}/messages", dir="b", limit="20"))["chunk"]
        return any("Tea or coffee?" in event["content"].get("body", "") for event in events)

    await eventually(asked)
    await admin.send(room_id, "tea")


async def test_ctrl_c_ends_everything_and_the_next_start_keeps_it(
    stack: Up, http: aiohttp.ClientSession
) -> None:
    before, agents = stack.state, await _asked(stack, http, "agents")
    assert stack.process is not None
    everything = children_of(stack.process.pid) | set(before["pids"].values())
    await stack.stop(signal.SIGINT)
    assert stack.process.returncode == 0
    assert "bridge stopping" in (stack.data / "bridge.log").read_text()
    assert not [pid for pid in everything if is_running(pid)]
    assert not (stack.data / "stack.json").exists()

    await stack.start()
    assert "created the agents" not in stack.output
    assert stack.state["users"] == before["users"]
    assert stack.state["mcp"] == before["mcp"]
    assert stack.state["app_server"]["token"] != before["app_server"]["token"]
    assert await _asked(stack, http, "agents") == agents


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does this on Linux only")
async def test_a_killed_stack_leaves_no_servers_behind(stack: Up) -> None:
    pids = stack.state["pids"]
    keeper = pids.pop("keeper")
    await stack.stop(signal.SIGKILL)
    try:
        await eventually(lambda: not [pid for pid in pids.values() if is_running(pid)])
    finally:
        os.kill(keeper, signal.SIGTERM)

"""`letta-matrix chat` in a terminal, and in a script: on a real homeserver."""

import asyncio
import fcntl
import json
import os
import pty
import re
import secrets
import struct
import sys
import termios
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from pathlib import Path

import pytest
import yaml
from tests.integration.bridge_world import DATABASE, Person, Room, World, settings_on
from tests.scripts import DONE, obey
from tests.waiting import eventually, within

from letta_matrix.common.connections.known_servers import note_process
from letta_matrix.conversations import notices
from letta_matrix.runtimes.memory import Answer, Script
from letta_matrix.runtimes.protocol import ApprovalRequested, TextDelta, TurnEvent, TurnRequest
from letta_matrix.stack.bridge_config import PID_FILES

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_WIDTH = 72
END, CTRL_C = "\x04", "\x03"
ENOUGH: set[str] = set()


def _plain(shown: bytes) -> str:
    return _CONTROL.sub("", shown.decode(errors="replace")).replace("\r\n", "\n")


class Terminal:
    """A terminal in which `letta-matrix chat` runs; `text` is what it has shown."""

    def __init__(self) -> None:
        self._far, self._near = pty.openpty()
        fcntl.ioctl(self._near, termios.TIOCSWINSZ, struct.pack("HHHH", 30, _WIDTH, 0, 0))
        self._raw, self._typed = b"", 0
        self.process: asyncio.subprocess.Process | None = None

    @property
    def raw(self) -> str:
        return self._raw.decode(errors="replace")

    @property
    def text(self) -> str:
        return _plain(self._raw)

    @property
    def since(self) -> str:
        """What it has shown since something was typed last, with that."""
        return _plain(self._raw[self._typed :])

    async def start(self, *arguments: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "letta_matrix", "chat", *arguments),
            stdin=self._near,
            stdout=self._near,
            stderr=self._near,
            env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
            # So that Ctrl-C reaches it.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        asyncio.get_running_loop().add_reader(self._far, self._read)

    def type(self, text: str) -> None:
        self._typed = len(self._raw)
        os.write(self._far, text.encode())

    async def shows(self, text: str, times: int = 1) -> None:
        await eventually(lambda: self.text.count(text) >= times, what=f"{text!r} is shown")

    async def asks(self, question: str = "Allow? ") -> None:
        """Wait until it asks something, after what was typed last."""
        await eventually(lambda: question in self.since, what=f"{question!r} is asked")

    async def ended(self) -> int:
        assert self.process is not None
        return await within(self.process.wait())

    async def close(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        asyncio.get_running_loop().remove_reader(self._far)
        for end in (self._far, self._near):
            os.close(end)

    def _read(self) -> None:
        self._raw += os.read(self._far, 65_536)


Typing = Callable[..., Awaitable[Terminal]]


def asks(request: TurnRequest) -> Generator[TurnEvent | float, Answer, None]:
    """`work` asks first, and tells what was answered; `talk WORD` goes on until WORD is among
    `ENOUGH`; for everything else see `obey`."""
    if request.text == "work":
        arguments = {"command": "touch note"}
        answer = yield ApprovalRequested(request.message_id, "Bash", arguments, always=True)
        yield TextDelta("0", f"It was **{'allowed' if answer.allow else 'denied'}**. ")
        yield TextDelta("0", answer.message)
        yield DONE
    elif request.text.startswith("talk "):
        while request.text.split()[1] not in ENOUGH:
            yield TextDelta("0", "word ")
            yield 0.02
        yield DONE
    else:
        yield from obey(request)


@pytest.fixture(scope="module")
def script() -> Script:
    return asks


@pytest.fixture
async def folder(world: World, ann: Person, tmp_path: Path) -> Path:
    """What the command finds in the data folder of a stack."""
    database = {"url": f"sqlite:///{world.config.path(DATABASE)}"}
    settings = settings_on(world.homeserver, ann, database=database)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    human = {"user_id": ann.user_id, "password": ann.password}
    state = {"homeserver": {"url": world.homeserver.url}, "users": {"admin": human}}
    (tmp_path / "stack.json").write_text(json.dumps(state))
    # By which it knows that it is the stack's homeserver that it talks to.
    assert world.homeserver.server.process is not None
    note_process(tmp_path / PID_FILES["synapse"], world.homeserver.server.process.pid)
    return tmp_path


@pytest.fixture
async def chat(room: Room, folder: Path) -> AsyncGenerator[Typing]:
    """Starts the command in a terminal, with the room's agent."""
    opened: list[Terminal] = []

    async def start(*message: str) -> Terminal:
        opened.append(Terminal())
        await opened[-1].start(room.agent.agent_id, *message, "--data", str(folder))
        return opened[-1]

    yield start
    for terminal in opened:
        await terminal.close()


async def test_a_tool_is_allowed_in_the_terminal(chat: Typing, room: Room) -> None:
    terminal = await chat()
    await terminal.shows("you> ")
    terminal.type("work\n")
    await terminal.shows("Allow? [y/N/always/reason] ")
    assert "May I run Bash?" in terminal.text
    terminal.type("y\n")
    await terminal.shows("It was allowed.")
    assert "\x1b[1mallowed" in terminal.raw
    assert "allowed by" not in terminal.text.partition("It was")[2]
    assert f"\n{room.agent.name}\n" in terminal.text
    await terminal.shows("you> ", 2)
    long = " ".join(f"number{number}" for number in range(30))
    terminal.type(f"{long}\n")
    await terminal.shows("number29", 2)
    await terminal.shows("you> ", 3)
    answer = terminal.text.rpartition("echo: ")[2].partition("you> ")[0]
    assert answer.split() == long.split()
    assert max(map(len, answer.split("\n"))) <= _WIDTH
    terminal.type(END)
    assert await terminal.ended() == 0


async def test_a_tool_is_allowed_elsewhere_and_denied_in_the_terminal(
    chat: Typing, ann: Person, room: Room
) -> None:
    terminal = await chat()
    await terminal.shows("you> ")
    terminal.type("work\n")
    await terminal.asks()
    question = await ann.beside(room, "approval")
    await ann.react(room.room_id, question["event_id"], "✅")
    await terminal.shows("It was allowed.")
    for number, reason in enumerate(("", "not on this machine"), 2):
        await terminal.shows("you> ", number)
        terminal.type("work\n")
        await terminal.asks()
        terminal.type(f"{reason}\n")

        def told(reason: str = reason) -> bool:
            answer = " ".join(terminal.since.partition("It was denied.")[2].split())
            return (reason or "no reason was given") in answer

        await eventually(told, what="why it was denied")
    await terminal.shows("you> ", 4)
    terminal.type(END)
    assert await terminal.ended() == 0


async def test_what_is_typed_too_early_shows_once_and_ctrl_c_stops_or_leaves(
    chat: Typing, ann: Person, room: Room
) -> None:
    terminal = await chat()
    await terminal.shows("you> ")
    stop = secrets.token_hex(4)
    terminal.type(f"talk {stop}\n")
    await terminal.shows("word word")
    terminal.type("and then\n")
    terminal.type(CTRL_C)
    await terminal.shows("Stop ")
    terminal.type("n\n")
    ENOUGH.add(stop)
    await terminal.shows("echo: and then")
    assert terminal.text.count("and then") == 2
    assert "you> and then\n" in terminal.text
    await terminal.shows("you> ", 3)
    said = await ann.timeline(room.room_id, "m.room.message")
    assert await ann.read_up_to(room.room_id) == said[-1]["event_id"]
    terminal.type("ramble\n")
    await terminal.shows("word3")
    terminal.type(CTRL_C)
    await terminal.asks("Stop ")
    terminal.type("\n")
    await terminal.shows(notices.STOPPED)
    await terminal.shows("you> ", 4)
    terminal.type(CTRL_C)
    assert await terminal.ended() == 130


async def test_ctrl_c_twice_leaves_an_agent_that_goes_on(
    chat: Typing, ann: Person, room: Room
) -> None:
    terminal = await chat("work")
    await terminal.shows("Allow? ")
    terminal.type(CTRL_C)
    await terminal.shows("Stop ")
    terminal.type(CTRL_C)
    assert await terminal.ended() == 130
    question = await ann.beside(room, "approval")
    await ann.react(room.room_id, question["event_id"], "✅")
    assert await ann.replies(room, 1) == ["It was **allowed**."]


async def test_what_waits_already_is_asked_first(chat: Typing, ann: Person, room: Room) -> None:
    await ann.send(room.room_id, "work")
    await ann.beside(room, "approval")
    terminal = await chat("hello")
    await terminal.shows("Allow? [y/N/always/reason] ")
    assert "May I run Bash?" in terminal.text
    terminal.type("always\n")
    assert await terminal.ended() == 0
    await terminal.shows("echo: hello")
    assert "It was allowed." in terminal.text.partition("echo: hello")[0]


async def test_a_script_leaves_a_question_to_others(room: Room, folder: Path) -> None:
    for text, told in ((b"work\n", b"question: `"), (b"hello\n", b"was not told 'hello'")):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "letta_matrix", "chat", room.agent.agent_id),
            *("--data", str(folder)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await within(process.communicate(text))
        assert process.returncode == 1
        assert b"May I run" in out + err
        assert told in err
        assert b"'!approve " in err


async def test_a_script_answers_with_a_command(room: Room, folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "letta_matrix", "chat", room.agent.agent_id),
        *("--data", str(folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"work\n")
    shown = b""
    while (key := re.search(rb"!approve (\w+)", shown)) is None:
        shown += await within(process.stdout.read(65_536))
    out, err = await within(process.communicate(b"!approve " + key[1] + b"\nand then?\n"))
    assert process.returncode == 0, err
    assert b"It was **allowed**." in out
    assert out.endswith(b"echo: and then?\n")
    assert b"Allow?" not in shown + out + err

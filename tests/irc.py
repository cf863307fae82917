"""An IRC network (Debian's ngircd), somebody on it, and a real bridge to it (heisenbridge)."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import free_port
from tests.waiting import eventually

_VENV = Path(__file__).parents[1] / "build" / "heisenbridge"
BRIDGE_BOT, GHOSTS = "@heisenbridge:localhost", r"@irc_(.+):localhost"

_SHOWN = 8_000
"""Characters of the bridge's output that are shown where a test fails beside it."""
_CONFIG = """
[Global]
  Name = irc.test
  Info = tests
  Listen = 127.0.0.1
  Ports = {port}
  MotdPhrase = hello
[Limits]
  MaxConnectionsIP = 0
  MaxNickLength = 30
[Options]
  DNS = no
  Ident = no
  PAM = no
"""


def missing() -> str:
    """What is not installed, "" where all is."""
    if ngircd_path() is None:
        return "Debian's ngircd is not installed"
    return (
        "" if (_VENV / ".installed").exists() else "heisenbridge is not: run scripts/heisenbridge"
    )


def ngircd_path() -> str | None:
    """The program, if Debian's is installed."""
    return shutil.which("ngircd", path="/usr/sbin:/usr/bin")


@contextmanager
def ngircd_in(directory: Path) -> Generator[int]:
    """An IRC server; its port."""
    port, program = free_port(), ngircd_path()
    assert program is not None
    config = directory / "ngircd.conf"
    config.write_text(_CONFIG.format(port=port))
    with (directory / "ngircd.log").open("wb") as log:
        process = subprocess.Popen([program, "-n", "-f", str(config)], stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def heisenbridge_on(file: Path, homeserver_url: str, owner: str) -> Generator[None]:
    """The bridge whose registration is in `file`, owned by somebody."""
    command = [
        _VENV / "bin" / "python",
        "-m",
        "heisenbridge",
        "-v",
        "-c",
        file,
        "-o",
        owner,
        homeserver_url,
    ]
    output = file.with_suffix(".log")
    with output.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    except BaseException as error:
        error.add_note(f"heisenbridge has said:\n{output.read_text()[-_SHOWN:]}")
        raise
    finally:
        process.terminate()
        process.wait()


@dataclass
class IrcClient:
    """Somebody on the network. `lines` is what they were told, each `NICK WHERE: TEXT`."""

    nick: str
    writer: asyncio.StreamWriter
    lines: list[str] = field(default_factory=list[str])
    members: set[str] = field(default_factory=set[str])
    online: set[str] = field(default_factory=set[str])
    welcome: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    def do(self, line: str) -> None:
        """Send a line of the protocol (RFC 2812)."""
        self.writer.write(f"{line}\r\n".encode())

    def say(self, where: str, text: str) -> None:
        self.do(f"PRIVMSG {where} :{text}")

    async def meets(self, nick: str) -> None:
        """Wait until somebody is on the network."""

        def is_there() -> bool:
            # One question at a time: servers delay who asks too often.
            if self.answered.is_set():
                self.answered.clear()
                self.do(f"ISON {nick}")
            return nick in self.online

        self.answered.set()

        await eventually(is_there, what=f"{nick} on the network")

    async def told(self, line: str) -> None:
        """Wait until this was heard."""
        await eventually(lambda: line in self.lines, what=f"{line!r}; heard {self.lines}: it")

    def _heard(self, line: str) -> None:
        words = line.split(" ", 3)
        who = words[0].removeprefix(":").partition("!")[0]
        if words[0] == "PING":
            self.do(f"PONG {words[1]}")
        elif words[1:2] == ["001"]:
            self.welcome.set()
        elif words[1:2] == ["303"]:
            self.online = {*words[3].removeprefix(":").split()}
            self.answered.set()
        elif words[1:2] == ["JOIN"]:
            self.members.add(who)
        elif words[1:2] == ["PRIVMSG"]:
            self.lines.append(f"{who} {words[2]}: {words[3].removeprefix(':')}")

    async def listen(self, reader: asyncio.StreamReader) -> None:
        """Hear what comes, until the connection ends."""
        while line := await reader.readline():
            self._heard(line.decode(errors="replace").strip())


@asynccontextmanager
async def irc_client(port: int, nick: str) -> AsyncGenerator[IrcClient]:
    """Somebody who is on the network."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = IrcClient(nick, writer)
    listening = asyncio.create_task(client.listen(reader))
    client.do(f"NICK {nick}")
    client.do(f"USER {nick} 0 * :{nick}")
    try:
        await eventually(client.welcome.is_set, what="the IRC server's welcome")
        yield client
    finally:
        listening.cancel()
        writer.close()
        await asyncio.gather(listening, return_exceptions=True)

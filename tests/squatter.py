"""A program that listens where a server of ours should: of another user, where we may be that."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import eventually

UID = 65534 if os.geteuid() == 0 else os.geteuid()

_LISTEN = """
import os, socket, sys, threading, time
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
def take():
    listening = socket.socket()
    for option in ("SO_REUSEADDR", *sys.argv[3:]):
        listening.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
    listening.bind(("127.0.0.1", int(sys.argv[1])))
    listening.listen()
    return listening
tries = 0
while True:
    try:
        listening = take()
        break
    except OSError:
        if sys.argv[2] != "lurks":
            raise
        tries += 1
        if tries == 1:
            print("lurks", flush=True)
        time.sleep(0.002)
print("listens", flush=True)
HEAD = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: 13\\r\\n\\r\\n"
def serve(connection):
    while heard := connection.recv(65536):
        print(heard.decode(errors="replace"), flush=True)
        connection.sendall(HEAD + b'{"nonce":"a"}')
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""


@dataclass
class Squatter:
    """It answers 200 to everything."""

    pid: int
    log: Path

    @property
    def listens(self) -> bool:
        """Whether it has got the port."""
        return "listens\n" in self.log.read_text()

    @property
    def heard(self) -> str:
        """What was sent to it."""
        return self.log.read_text().partition("listens\n")[2]


@asynccontextmanager
async def squatting(
    port: int, log: Path, *options: str, lurks: bool = False
) -> AsyncGenerator[Squatter]:
    """One that has taken the port, or `lurks` for it, all the time; `options` are those of its
    socket beside SO_REUSEADDR.

    Raises:
        AssertionError: it could not.
    """
    begun = "lurks" if lurks else "listens"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _LISTEN),
            *(str(port), begun, *options),
            stdout=file,
            stderr=file,
            cwd="/",
        )
    try:
        await eventually(lambda: process.returncode is not None or log.read_text() != "")
        await eventually(lambda: process.returncode is not None or begun in log.read_text())
        assert process.returncode is None, log.read_text()
        yield Squatter(process.pid, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

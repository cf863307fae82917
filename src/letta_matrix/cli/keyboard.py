"""The lines that a person, or a script, gives to a command."""

import asyncio
import os
import select
from collections import deque

_CHUNK = 65_536


class Keyboard:
    """Lines of standard input, read when they are wanted and no earlier.

    `is_terminal`: a person is there to be asked. `ended`: no more will come.
    """

    def __init__(self, descriptor: int = 0) -> None:
        self.is_terminal = os.isatty(descriptor)
        self.ended = False
        self._descriptor = descriptor
        self._rest = b""
        self._ahead: deque[str] = deque()

    @property
    def has_line(self) -> bool:
        """Whether the next `line` has been typed before."""
        return bool(self._ahead)

    async def line(self) -> str | None:
        """The next line without blanks around it, None at the end."""
        return self._ahead.popleft() if self._ahead else await self.new_line()

    async def new_line(self) -> str | None:
        """The same, of what is typed from now on (see `set_aside`)."""
        while b"\n" not in self._rest and not self.ended:
            await self._ready()
            self._read()
        if self.ended and not self._rest:
            return None
        line, _, self._rest = self._rest.partition(b"\n")
        return _decoded(line)

    def put_back(self, line: str) -> None:
        """Let the next `line` be this one again."""
        self._ahead.appendleft(line)

    def set_aside(self) -> None:
        """Keep for `line` what has been typed in the terminal already: it is no answer to what is
        asked only now. Half a line is forgotten."""
        import termios

        if not self.is_terminal:
            return
        while not self.ended and select.select([self._descriptor], [], [], 0)[0]:
            self._read()
        *lines, self._rest = self._rest.split(b"\n")
        self._ahead.extend(map(_decoded, lines))
        if not self.ended:
            termios.tcflush(self._descriptor, termios.TCIFLUSH)

    async def _ready(self) -> None:
        """Wait until there is something to read."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        try:
            loop.add_reader(self._descriptor, ready.set)
        except OSError:
            return  # a file is always ready, and what is closed says so when it is read
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._descriptor)

    def _read(self) -> None:
        try:
            chunk = os.read(self._descriptor, _CHUNK)
        except OSError:
            chunk = b""  # the terminal has gone
        self._rest += chunk
        self.ended = not chunk


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace").strip()

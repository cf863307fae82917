"""The lines that a person, or a script, gives to a command."""

import asyncio
import os
import select
import termios
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress

_CHUNK = 65_536
_LOCAL = 3
"""Where a terminal's attributes have the flags of how lines are typed."""


class Keyboard:
    """Lines of standard input, read when they are wanted and no earlier.

    `is_terminal`: a person is there to be asked. `ended`: no more will come. While it is `held`,
    what a person types shows only while a line is waited for: elsewhere it would stand in the
    midst of what is written there.
    """

    def __init__(self, descriptor: int = 0) -> None:
        self.is_terminal = os.isatty(descriptor)
        self.ended = False
        self._descriptor = descriptor
        self._rest = b""
        self._ahead: deque[str] = deque()
        self._held = False
        self._shows = False

    @property
    def has_line(self) -> bool:
        """Whether the next `line` has been typed before."""
        return bool(self._ahead)

    @property
    def begun(self) -> str:
        """What has been typed of the next line, if that is not whole yet."""
        return "" if self._ahead else self._rest.decode("utf-8", "replace")

    @contextmanager
    def held(self) -> Generator[None]:
        """Until this ends, what is typed shows only where it is waited for, and Ctrl-C loses none
        of it. Left by an exception, as by Ctrl-C, what was not read is nobody's any more."""
        if not self._is_ours:
            yield
            return
        before, when = termios.tcgetattr(self._descriptor), termios.TCSAFLUSH
        self._held = True
        self._hold()
        try:
            yield
            when = termios.TCSANOW
        finally:
            self._held = self._shows = False
            with suppress(termios.error):  # the terminal has gone
                termios.tcsetattr(self._descriptor, when, before)

    def resumed(self) -> None:
        """The program goes on after it was stopped: meanwhile a shell has set the terminal."""
        if self._held and self._is_ours:
            self._hold()

    def listen(self) -> None:
        """Let show what is typed from now on, until a line is read; what was typed before is taken
        in, half a line too, see `has_line` and `begun`."""
        if self._held and not self.ended:
            self._take_in()
            self._shows = True
            self._set(termios.ECHO, on=True)

    async def line(self) -> str | None:
        """The next line without blanks around it, None at the end."""
        if not self._ahead:
            return await self.new_line()
        self._hush()
        return self._ahead.popleft()

    async def new_line(self) -> str | None:
        """The same, of what is typed from now on (see `set_aside`)."""
        try:
            while b"\n" not in self._rest and not self.ended:
                await self._ready()
                self._read()
        finally:
            self._hush()
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
        if not self.is_terminal:
            return
        self._take_lines()
        self._rest = b""
        if not self.ended:
            termios.tcflush(self._descriptor, termios.TCIFLUSH)

    @property
    def _is_ours(self) -> bool:
        """Whether there is a terminal that is ours to set: not for a command in the background."""
        if not self.is_terminal:
            return False
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:
            return True  # nobody's

    def _take_in(self) -> None:
        self._take_lines()
        # A terminal gives half a line away only where it knows of no lines.
        self._set(termios.ICANON, on=False)
        self._take_lines()
        self._set(termios.ICANON, on=True)

    def _take_lines(self) -> None:
        while not self.ended and select.select([self._descriptor], [], [], 0)[0]:
            self._read()
        *lines, self._rest = self._rest.split(b"\n")
        self._ahead.extend(map(_decoded, lines))

    def _hold(self) -> None:
        self._set(termios.NOFLSH, on=True)
        self._set(termios.ECHO, on=self._shows)

    def _hush(self) -> None:
        self._shows = False
        if self._held and not self.ended:
            self._set(termios.ECHO, on=False)

    def _set(self, flag: int, *, on: bool) -> None:
        with suppress(termios.error):  # the terminal has gone
            attributes = termios.tcgetattr(self._descriptor)
            attributes[_LOCAL] = attributes[_LOCAL] | flag if on else attributes[_LOCAL] & ~flag
            termios.tcsetattr(self._descriptor, termios.TCSANOW, attributes)

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

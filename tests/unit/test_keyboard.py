"""Lines from a terminal, a pipe, a file, or nobody."""

import asyncio
import os
import pty
import select
import termios
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.waiting import eventually, settled, within

from letta_matrix.cli.keyboard import Keyboard


@pytest.fixture
def terminal() -> Generator[tuple[int, Keyboard]]:
    """The far end of a terminal, and the keyboard at it."""
    far, near = pty.openpty()
    yield far, Keyboard(near)
    for end in (far, near):
        os.close(end)


async def test_lines_of_a_pipe_come_one_by_one() -> None:
    near, far = os.pipe()
    keyboard = Keyboard(near)
    os.write(far, b"  one \n\nthr")
    assert [await within(keyboard.line()), await within(keyboard.line())] == ["one", ""]
    third = asyncio.create_task(keyboard.line())
    await settled(third)
    os.write(far, "ée".encode())
    os.close(far)
    assert await within(third) == "thrée"
    assert await within(keyboard.line()) is None
    assert (keyboard.is_terminal, keyboard.ended) == (False, True)
    os.close(near)


@pytest.mark.parametrize("text", ["one\ntwo", ""])
async def test_a_file_is_read_to_its_end(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lines"
    path.write_text(text)
    with path.open() as file:
        keyboard = Keyboard(file.fileno())
        lines = [await within(keyboard.line()) for _ in range(3)]
    assert lines == [*text.split(), *[None] * 3][:3]


async def test_a_wait_that_is_given_up_loses_no_line() -> None:
    near, far = os.pipe()
    keyboard = Keyboard(near)
    waiting = asyncio.create_task(keyboard.line())
    await settled(waiting)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    os.write(far, b"here\n")
    assert await within(keyboard.line()) == "here"
    keyboard.put_back("here")
    assert (keyboard.has_line, await within(keyboard.line())) == (True, "here")
    for end in (near, far):
        os.close(end)


async def test_what_was_typed_before_is_set_aside(terminal: tuple[int, Keyboard]) -> None:
    far, keyboard = terminal
    assert keyboard.is_terminal
    os.write(far, b"earlier\n")
    await eventually(lambda: (keyboard.set_aside(), keyboard.has_line)[1])
    answer = asyncio.create_task(keyboard.new_line())
    await settled(answer)
    os.write(far, b"now\n")
    assert await within(answer) == "now"
    assert await within(keyboard.line()) == "earlier"


def _echoed(far: int) -> str:
    """What the terminal shows by itself, up to now."""
    shown = b""
    while select.select([far], [], [], 0)[0]:
        shown += os.read(far, 65_536)
    return shown.decode()


async def test_what_is_typed_shows_only_while_a_line_is_waited_for(
    terminal: tuple[int, Keyboard],
) -> None:
    far, keyboard = terminal
    before = termios.tcgetattr(far)
    with keyboard.held():
        os.write(far, b"too early\nhal")
        await eventually(lambda: (keyboard.listen(), keyboard.has_line)[1])
        assert (_echoed(far), keyboard.begun) == ("", "")
        assert await within(keyboard.line()) == "too early"
        os.write(far, b"f of ")
        await eventually(lambda: (keyboard.listen(), keyboard.begun)[1] == "half of ")
        line = asyncio.create_task(keyboard.line())
        os.write(far, b"it\n")
        assert await within(line) == "half of it"
        assert _echoed(far) == "it\r\n"
        os.write(far, b"unseen\n")
        await eventually(lambda: select.select([keyboard._descriptor], [], [], 0)[0])
        assert _echoed(far) == ""
    assert termios.tcgetattr(far) == before


async def test_what_a_shell_has_set_meanwhile_is_as_before_once_the_program_goes_on(
    terminal: tuple[int, Keyboard],
) -> None:
    far, keyboard = terminal
    before = termios.tcgetattr(far)
    with keyboard.held():
        for set_anew in (lambda: None, keyboard.listen):
            set_anew()
            held = termios.tcgetattr(far)
            assert held != before
            termios.tcsetattr(far, termios.TCSANOW, before)
            keyboard.resumed()
            assert termios.tcgetattr(far) == held
    keyboard.resumed()
    assert termios.tcgetattr(far) == before


async def test_ctrl_c_loses_no_line_that_was_typed(terminal: tuple[int, Keyboard]) -> None:
    far, keyboard = terminal
    with keyboard.held():
        os.write(far, b"later\n\x03")
        await eventually(lambda: (keyboard.set_aside(), keyboard.has_line)[1])
        assert await within(keyboard.line()) == "later"


async def test_who_leaves_in_the_midst_leaves_nothing_for_others(
    terminal: tuple[int, Keyboard],
) -> None:
    far, keyboard = terminal
    left = pytest.raises(asyncio.CancelledError)
    with left, keyboard.held():
        os.write(far, b"not for the shell\n")
        await eventually(lambda: select.select([keyboard._descriptor], [], [], 0)[0])
        raise asyncio.CancelledError
    os.write(far, b"this is\n")
    assert await within(keyboard.line()) == "this is"


async def test_a_terminal_that_goes_ends_it() -> None:
    far, near = pty.openpty()
    keyboard = Keyboard(near)
    os.close(far)
    assert await within(keyboard.line()) is None
    os.close(near)

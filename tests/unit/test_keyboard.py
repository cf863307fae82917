"""Lines from a terminal, a pipe, a file, or nobody."""

import asyncio
import os
import pty
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


async def test_a_terminal_that_goes_ends_it() -> None:
    far, near = pty.openpty()
    keyboard = Keyboard(near)
    os.close(far)
    assert await within(keyboard.line()) is None
    os.close(near)

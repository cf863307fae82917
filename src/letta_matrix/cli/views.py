"""What stands in the terminal: an agent's messages, and prompts for the person."""

import sys
from abc import ABC, abstractmethod

from letta_matrix.cli.transcript import Update


class View(ABC):
    """Shows messages below each other. `prompting`: the last line asks the person something."""

    def __init__(self) -> None:
        self.prompting = False
        self._introduced = False
        # Who redirects the output wants the answer there, and is still to be asked.
        self._prompts = sys.stdout if sys.stdout.isatty() else sys.stderr

    @abstractmethod
    def show(self, update: Update) -> None:
        """A message as it is now; one that grows does so in its place."""

    @abstractmethod
    def settle(self) -> None:
        """Let stand what is there; the next text begins a line."""

    def heard(self) -> None:
        """The person has said something: the agent's name belongs above what follows."""
        self._introduced = False

    def prompt(self, text: str) -> None:
        """Ask the person something, whose answer is typed behind it."""
        self.settle()
        print(text, end="", file=self._prompts, flush=True)
        self.prompting = True

    def answered(self) -> None:
        """The person has typed a line."""
        self.prompting = False

    def echo(self, line: str, end: str = "\n") -> None:
        """Show behind its prompt what was typed before."""
        print(line, end=end, file=self._prompts, flush=True)

    def withdraw(self) -> None:
        """What was asked does not matter any more, or is asked again below."""
        if self.prompting:
            print(file=self._prompts, flush=True)
            self.prompting = False

    def remark(self, text: str) -> None:
        """A word of our own."""
        self.withdraw()
        self.settle()
        print(f"({text})", file=sys.stderr, flush=True)


class PlainView(View):
    """Text that only ever grows, for pipes and files."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, str] = {}
        self._last = ""
        self._in_line = False

    def show(self, update: Update) -> None:
        self.withdraw()
        before = self._shown.get(update.event_id)
        self._shown[update.event_id] = update.text
        goes_on = update.event_id == self._last and before is not None
        if goes_on and update.text.startswith(before or ""):
            added = update.text[len(before or "") :]
        else:
            added = f"\n{update.text}" if self._in_line else update.text
        self._last, self._in_line = update.event_id, self._in_line or bool(added)
        print(added, end="", flush=True)

    def settle(self) -> None:
        if self._in_line:
            print(flush=True)
            self._in_line = False

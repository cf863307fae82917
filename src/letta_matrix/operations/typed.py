"""How people type an operation in chat: words, and where they belong."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    WORD = "word"  # one word, or several in quotes
    NUMBER = "number"  # a whole number from 1 on
    CHOICE = "choice"  # one of `choices`
    TEXT = "text"  # everything that is left
    OPTION = "option"  # `--name VALUE`
    FLAG = "flag"  # `--name`


@dataclass(frozen=True, slots=True)
class Argument:
    """One thing a command takes; `name` is the one in the usage, without `--`. Of an operation it
    is the argument `field`, "" for the one of its name."""

    name: str
    kind: Kind = Kind.WORD
    required: bool = False
    choices: tuple[str, ...] = ()
    field: str = ""

    @property
    def shown(self) -> str:
        """As it stands in a usage line."""
        text = {
            Kind.CHOICE: "|".join(self.choices),
            Kind.OPTION: f"--{self.name} {self.name.upper()}",
            Kind.FLAG: f"--{self.name}",
        }.get(self.kind, self.name)
        return text if self.required else f"[{text}]"


class Where(Enum):
    """Where a command belongs; one of the management can be given in an agent's room too."""

    AGENT = "agent"  # where an agent is
    MANAGEMENT = "management"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Typed:
    """The command that an operation is typed as, and `help`, one line that ends in a full stop.

    `says` is the answer as Markdown: a text with fields of the result in braces, which are
    quoted, or what makes one of the result. Without it the fields are listed. The help lists it
    behind the command `after`, or last.
    """

    name: str
    help: str
    arguments: tuple[Argument, ...] = ()
    says: str | Callable[[Any], str] = ""
    after: str = ""

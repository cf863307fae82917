"""Reads command lines. Pure functions; quotes and dashes as people and their phones type them."""

import re
from collections.abc import Sequence

from letta_matrix.doors.chat.command import Arguments, Command, CommandFault, Value
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.typed import Argument, Kind

# A quote counts only around whole words: "don't" is no open one.
_WORD = re.compile(
    r"(?P<option>(?:--|[–—])[a-z]+)=(?=\S)"
    r"|\"(?P<double>[^\"]*)\"(?=\s|\Z)|'(?P<single>[^']*)'(?=\s|\Z)"
    r"|“(?P<curly>[^”]*)”(?=\s|\Z)|(?P<bare>\S+)"
)
_LONGEST_LINE = 4000
_OPTION = re.compile(r"(?:--|[–—])([a-z]+)\Z", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,9}\Z")


def split_line(line: str) -> tuple[str, list[str]]:
    """The command's name in small letters, and its words; quoted ones count as one."""
    found = _WORD.finditer(line[:_LONGEST_LINE])
    words = [next(word for word in match.groups() if word is not None) for match in found]
    return (words[0].lower(), words[1:]) if words else ("", [])


def parse_arguments(command: Command, words: Sequence[str]) -> Arguments:
    """What a command was given. Raises CommandFault, which names the word at fault."""
    values, rest = _options(command, words)
    for argument in command.arguments:
        if argument.kind in (Kind.OPTION, Kind.FLAG):
            continue
        if argument.kind is Kind.TEXT and rest:
            values[argument.name], rest = " ".join(rest), []
        elif rest:
            values[argument.name] = _value(command, argument, rest.pop(0))
        elif argument.required:
            raise CommandFault(
                f"{code('!' + command.name)} needs {_wanted(argument)}: {_usage(command)}"
            )
    if rest:
        raise CommandFault(
            f"{code('!' + command.name)} takes no {code(rest[0])}: {_usage(command)}"
        )
    return Arguments(values)


def _options(command: Command, words: Sequence[str]) -> tuple[dict[str, Value], list[str]]:
    known = {
        argument.name: argument
        for argument in command.arguments
        if argument.kind in (Kind.OPTION, Kind.FLAG)
    }
    values, rest, left = dict[str, Value](), list[str](), list(words)
    while left:
        word = left.pop(0)
        match = _OPTION.match(word)
        if not known or match is None:
            rest.append(word)
            continue
        argument = known.get(match[1].lower())
        if argument is None:
            raise CommandFault(f"{code('!' + command.name)} has no {code(word)}: {_usage(command)}")
        if argument.kind is Kind.FLAG:
            values[argument.name] = True
        elif left:
            values[argument.name] = left.pop(0)
        else:
            raise CommandFault(f"{code(word)} needs a value: {_usage(command)}")
    return values, rest


def _value(command: Command, argument: Argument, word: str) -> Value:
    value: Value | None = word
    if argument.kind is Kind.NUMBER:
        value = int(word) if _NUMBER.match(word) and int(word) > 0 else None
    elif argument.kind is Kind.CHOICE:
        value = word.lower() if word.lower() in argument.choices else None
    if value is None:
        taken = f"{code('!' + command.name)} takes {_wanted(argument)}"
        raise CommandFault(f"{taken}, got {code(word)}.")
    return value


def _wanted(argument: Argument) -> str:
    if argument.kind is Kind.NUMBER:
        return "a number"
    if argument.kind is Kind.CHOICE:
        return " or ".join(code(choice) for choice in argument.choices)
    return code(argument.name)


def _usage(command: Command) -> str:
    return f"{code(command.usage)}."

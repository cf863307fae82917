"""Commands that only pass on: an operation declares how it is typed, and what is answered."""

from collections.abc import Mapping
from typing import Any

from letta_matrix.access.principal import Scope
from letta_matrix.doors.chat.command import Command, CommandContext
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.operation import Operation
from letta_matrix.operations.typed import Typed, Where


def passing_on(operation: Operation[Any], typed: Typed) -> Command:
    """The command that an operation is typed as."""

    async def run(context: CommandContext) -> str:
        given, wanted = context.arguments.values, dict[str, Any]()
        for one in typed.arguments:
            if (value := given.get(one.name)) is not None:
                wanted[one.field or one.name.lower()] = _whole(value)
        return _answer(typed, await context.do(operation.name, **wanted))

    is_admins = operation.scope is Scope.ADMIN and not operation.people
    return Command(
        typed.name,
        run,
        typed.help,
        typed.arguments,
        permission="admin" if is_admins else "user",
        scope=Where.MANAGEMENT,
    )


def _whole(value: object) -> object:
    return " ".join(value.split()) if isinstance(value, str) else value


def _answer(typed: Typed, done: Mapping[str, object]) -> str:
    if callable(typed.says):
        return typed.says(done)
    shown = {name: code(str(value), limit=255) for name, value in done.items()}
    if typed.says:
        return typed.says.format_map(shown)
    return "\n".join(f"- {name}: {value}" for name, value in shown.items()) or "Done."

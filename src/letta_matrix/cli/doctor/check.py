"""A check as it is declared: a function of what is examined, with its name above it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from letta_matrix.cli.doctor.finding import Finding, Findings
from letta_matrix.cli.doctor.subject import Subject

PATIENCE = 30.0
"""Seconds that one check may take."""

Look = Callable[[Subject], Awaitable[Findings]]
Judge = Callable[[Subject], Awaitable[Finding | Findings]]


@dataclass(frozen=True, slots=True)
class Check:
    """Looks at one thing. `shows` is how anybody notices that it is wrong, `remedy` what to do
    where the finding has nothing better. With a check in trouble that it `needs` there is nothing
    to look at. `vital` is the name under which a running bridge watches the same; one that ends
    in a space is how such names begin."""

    name: str
    shows: str
    look: Look
    needs: tuple[str, ...] = ()
    vital: str = ""
    remedy: str = ""

    def is_vital(self, name: str) -> bool:
        """Whether the bridge watches the same under this name."""
        if self.vital.endswith(" "):
            return name.startswith(self.vital)
        return bool(self.vital) and name == self.vital


def check(
    name: str, *, shows: str, needs: tuple[str, ...] = (), vital: str = "", remedy: str = ""
) -> Callable[[Judge], Check]:
    """Declare the function below it, which may find one thing or several, as a check."""

    def declared(judge: Judge) -> Check:
        async def look(subject: Subject) -> Findings:
            found = await judge(subject)
            return [found] if isinstance(found, Finding) else found

        return Check(name, shows, look, needs, vital, remedy)

    return declared

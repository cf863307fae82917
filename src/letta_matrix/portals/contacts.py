"""How people of other networks are named, and which of the routes is theirs. Pure functions."""

import re
from collections.abc import Callable, Mapping, Sequence

_BETWEEN_DIGITS = re.compile(r"[\s().\-/]")
_NUMBER = re.compile(r"(?:\+|00)\d{3,20}\*?")
_URI = re.compile(r"(?:tel|sms|mailto|xmpp|irc):", re.IGNORECASE)
EVERYBODY = "*"


def normal(contact: str) -> str:
    """A contact as it is compared: numbers as `+` and digits, anything else in small letters."""
    text = _URI.sub("", contact.strip(), count=1).strip()
    digits = _BETWEEN_DIGITS.sub("", text)
    if _NUMBER.fullmatch(digits):
        return "+" + digits.removeprefix("+").removeprefix("00" if digits[0] == "0" else "")
    return text.casefold()


class Routes:
    """A mapping from contacts, prefixes that end in `*`, and `*` alone, to whatever it is. `read`
    makes them normal."""

    def __init__(self, routes: Mapping[str, str], read: Callable[[str], str] = normal) -> None:
        known = {read(contact): target for contact, target in routes.items()}
        self._exact = {one: target for one, target in known.items() if not one.endswith(EVERYBODY)}
        prefixes = [
            (one.removesuffix(EVERYBODY), target)
            for one, target in known.items()
            if one.endswith(EVERYBODY)
        ]
        # `*` is the shortest.
        self._prefixes = sorted(prefixes, key=lambda one: -len(one[0]))

    def of(self, names: Sequence[str], *, everybody: bool = True) -> str | None:
        """What the first of somebody's normal names leads to, else the longest prefix; `*` alone
        only if `everybody` is meant."""
        if (exact := self.exact(names)) is not None:
            return exact
        for prefix, target in self._prefixes:
            if (prefix or everybody) and any(name.startswith(prefix) for name in names):
                return target
        return None

    def exact(self, names: Sequence[str]) -> str | None:
        """What the first of somebody's normal names leads to."""
        return next((self._exact[name] for name in names if name in self._exact), None)

"""Whether the line has a phone that texts come and go by, asked of its bridge now and then."""

from collections.abc import Sequence

import structlog

from letta_matrix.common.parts import part
from letta_matrix.common.vitals import Trouble
from letta_matrix.common.waiting import is_set
from letta_matrix.portals.provisioning import Login, Provisioning, ProvisioningFault, Why

log = structlog.get_logger()

_BEAT, _AGAIN = 60.0, 10.0
"""Seconds between looks, and while something is wrong."""

# Those of mautrix (`BridgeStateEvent`).
_WELL = ("CONNECTED", "BACKFILLING")
_GONE = ("BAD_CREDENTIALS", "LOGGED_OUT")
_BETWEEN = ("", "STARTING", "CONNECTING", "TRANSIENT_DISCONNECT")
_PHONE_IS_SILENT = "gm-phone-not-responding"
"""How mautrix-gmessages tells a phone that does not answer from one that is unpaired."""

_PAIR = "pair one with `letta-matrix sms login`"
_UNKNOWN = "texts may come and go all the same, but nobody here can tell"
_REMEDIES = {
    Why.UNAVAILABLE: "see whether mautrix-gmessages runs, and what its log says",
    Why.LOGGED_OUT: _PAIR,
    Why.REFUSED: _UNKNOWN,
    Why.FOREIGN: _UNKNOWN,
}


@part
class LineWatch:
    """Looks every minute, more often while something is wrong, and at once after a phone was
    paired or unpaired here."""

    _provisioning: Provisioning

    def __post_init__(self) -> None:
        self.trouble: Trouble | None = None
        self._is_between = False

    async def run(self) -> None:
        """Go on for ever."""
        while True:
            self._provisioning.changed.clear()
            await self.look()
            is_well = self.trouble is None and not self._is_between
            await is_set(self._provisioning.changed, _BEAT if is_well else _AGAIN)

    async def look(self) -> None:
        """Ask once."""
        before, was_between = self.trouble, self._is_between
        try:
            logins = await self._provisioning.logins()
        except ProvisioningFault as fault:
            self._is_between = False
            self.trouble = not_known(fault)
        else:
            self._is_between = any(one.state in _BETWEEN for one in logins)
            # What passes by itself is told once it has not.
            lasts = was_between or before is not None
            self.trouble = trouble_of(logins, lasts=lasts)
        if (self.trouble is None) != (before is None):
            log.warning("the phone line", trouble=str(self.trouble or "is well again"))


def not_known(fault: ProvisioningFault) -> Trouble:
    """What is wrong where the phone's bridge tells nothing of its phones."""
    return Trouble(f"how the phone line is, is not known: {fault}", _REMEDIES[fault.why])


def trouble_of(logins: Sequence[Login], *, lasts: bool) -> Trouble | None:
    """What is wrong with the phones of a line; `lasts`: it was not well when last looked at."""
    if not logins:
        return Trouble("no phone is paired with the line: no texts come or go", _PAIR)
    found = (_trouble_with(one, lasts=lasts) for one in logins)
    return next((one for one in found if one is not None), None)


def _trouble_with(login: Login, *, lasts: bool) -> Trouble | None:
    if login.state in _WELL or (login.state in _BETWEEN and not lasts):
        return None
    who = ": ".join(one for one in (login.name, login.reason) if one)
    if _PHONE_IS_SILENT in login.error:
        return Trouble(
            "the phone of the line does not answer its bridge: no texts come or go",
            "see whether it is on, has a network, and lets Google Messages run in the background; "
            "if that does not help, `letta-matrix sms login`",
            who,
        )
    if login.state in _GONE:
        text = "the phone of the line is not paired with its bridge any more: no texts come or go"
        return Trouble(text, "pair it again with `letta-matrix sms login`", who)
    return Trouble(
        "the bridge has no connection to the phone of the line: texts may neither come nor go",
        "it tries again by itself; if that lasts, see whether the phone is on and has a network, "
        "else `letta-matrix sms login`",
        who,
    )

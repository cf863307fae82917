"""How often somebody may log in wrongly, so that nobody keeps others out by it.

Strictly for each account from an address; more widely for an address, which may be that of many;
and an account that is tried from everywhere is only made slow, also for its owner, who gets in.
"""

import ipaddress
from dataclasses import dataclass

from letta_matrix.access.rate_limit import RateLimit
from letta_matrix.access.refusals import TooOften
from letta_matrix.common import clock

_OF_A_USER_FROM_A_PEER = 5
_OF_A_PEER = 60
_OF_A_USER = 20
_SLOW = 5.0
"""Seconds that a login to an account takes that is tried too often from everywhere."""
_NETWORK = 64
"""Bits of an IPv6 address that one holder has the rest of (RFC 6177)."""


@dataclass(frozen=True, slots=True)
class Try:
    """A login, counted as wrong until it is put back; to be made after `pause` seconds."""

    user: str
    peer: str
    pause: float


class LoginLimits:
    """Counts wrong logins, a minute's worth at once."""

    def __init__(self) -> None:
        self._pairs = RateLimit(_OF_A_USER_FROM_A_PEER)
        self._peers = RateLimit(_OF_A_PEER)
        self._users = RateLimit(_OF_A_USER)

    def take(self, user: str, peer: str) -> Try:
        """Somebody at the address `peer` tries to be `user`. Raises TooOften."""
        now, peer = clock.now(), _holder(peer)
        for limit, key in ((self._pairs, f"{peer} {user}"), (self._peers, peer)):
            if (wait := limit.take(key, now)) > 0:
                raise TooOften(wait)
        return Try(user, peer, _SLOW if self._users.take(user, now) > 0 else 0.0)

    def put_back(self, done: Try) -> None:
        """It was no wrong one."""
        self._pairs.put_back(f"{done.peer} {done.user}")
        self._peers.put_back(done.peer)
        if not done.pause:
            self._users.put_back(done.user)


def _holder(peer: str) -> str:
    """The address, or the network of which one holder has all addresses."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer
    if address.version == 4 or address.ipv4_mapped is not None:
        return peer
    return str(ipaddress.ip_network((int(address), _NETWORK), strict=False))

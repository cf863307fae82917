"""Who is behind a proxy."""

import ipaddress
import re
from collections.abc import Sequence

_WITH_PORT = re.compile(r"\[([^\]]+)\](?::\d+)?|([^:]+):\d+")


def client_of(peer: str, forwarded_for: Sequence[str], trusted: Sequence[str]) -> str:
    """The address of a client: `peer`, unless that is one of the addresses and networks `trusted`;
    then the last one of its `X-Forwarded-For` headers that is not trusted, too. Before that
    anybody can have written anything."""
    networks = [ipaddress.ip_network(one) for one in trusted]
    hops = [_bare(hop.strip()) for line in forwarded_for for hop in line.split(",") if hop.strip()]
    client = peer
    while hops and _is_in(client, networks):
        client = hops.pop()
    return client


def _bare(hop: str) -> str:
    """An address without the port that some proxies write behind it."""
    found = _WITH_PORT.fullmatch(hop)
    return (found[1] or found[2]) if found else hop


def _is_in(address: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        return any(ipaddress.ip_address(address) in network for network in networks)
    except ValueError:
        return False

"""Addresses of this machine."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host of a URL, a name or an address without brackets, is this machine.

    No proxy of the environment could reach what it means here.
    """
    name = host.lower().rstrip(".")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")

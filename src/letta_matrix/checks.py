"""What the bridge watches of its parts, and what an operator can do about it."""

from collections.abc import Callable, Mapping

from letta_matrix.assembly import Parts
from letta_matrix.connections.admission import Connections
from letta_matrix.vitals import Trouble, Vitals, said


def watch_parts(
    vitals: Vitals,
    parts: Parts,
    connections: list[Connections],
    provisioning: Callable[[], Mapping[str, str]],
) -> None:
    """Let `vitals` ask the parts that know how they are; `provisioning` tells why agents cannot
    be set up, by their ids."""
    vitals.watch("homeserver address", lambda: said(parts.homeserver.trouble))
    vitals.watch("requests", lambda: _stuck(parts.homeserver.retries.stuck))
    vitals.watch("database", lambda: said(parts.stores.trouble))
    vitals.watch("missed messages", lambda: said(parts.catch_up.trouble))
    vitals.watch("agents", lambda: _agents(len(provisioning())))
    vitals.watch("connections", lambda: _connections(connections))


def _stuck(requests: int) -> Trouble | None:
    if not requests:
        return None
    return Trouble(
        f"{requests} requests to the homeserver have failed for 30 s or longer",
        "they are tried again; the bridge's log says which, and why they fail",
    )


def _agents(count: int) -> Trouble | None:
    if not count:
        return None
    return Trouble(
        f"agents that cannot be set up: {count}",
        "it is tried again; why stands in the bridge's log and, for a token with the scope admin, "
        "in GET /api/v1/health",
    )


def _connections(connections: list[Connections]) -> Trouble | None:
    return said("; ".join(trouble for some in connections for trouble in some.troubles))

"""Every check, in the order in which somebody who looks for a fault would go."""

from letta_matrix.cli.doctor import (
    abilities,
    homeserver,
    network,
    portals,
    recognition,
    rooms,
    runtimes,
    settings,
    storage,
    well_known,
)
from letta_matrix.cli.doctor.check import Check

CHECKS: tuple[Check, ...] = tuple(
    one
    for group in (
        settings,
        network,
        storage,
        homeserver,
        recognition,
        abilities,
        well_known,
        runtimes,
        portals,
        rooms,
    )
    for one in vars(group).values()
    if isinstance(one, Check)
)

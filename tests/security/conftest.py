"""The stages that attacks are played on: those of the other tiers."""

from tests.integration.conftest import ann, bench, bob, keeper_socket
from tests.unit.conftest import (
    database,
    decoders,
    directory,
    fake,
    stage,
)
from tests.unit.conftest import homeserver as client

__all__ = [
    "ann",
    "bench",
    "bob",
    "client",
    "database",
    "decoders",
    "directory",
    "fake",
    "keeper_socket",
    "stage",
]

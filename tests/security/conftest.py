"""The stages that attacks are played on: those of the other tiers."""

from tests.integration.conftest import ann, bench, bob, keeper_socket
from tests.unit.conftest import database_file, decoders, fake, migrated, stage

__all__ = [
    "ann",
    "bench",
    "bob",
    "database_file",
    "decoders",
    "fake",
    "keeper_socket",
    "migrated",
    "stage",
]

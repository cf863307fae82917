"""Who answers the homeserver while the bridge is examined: the bridge, or we in its place."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from letta_matrix.cli.doctor.subject import Subject
from letta_matrix.common.connections.listening import PortTakenError, listen
from letta_matrix.matrix.appservice import Appservice


class _NotNow(Exception):
    """What the homeserver pushes stays with it, until a bridge takes it."""


class _Nobody:
    """Knows the hs_token, and nothing else."""

    async def admit(self, txn_id: str, events: list[dict[str, Any]]) -> None:
        raise _NotNow("only a bridge takes messages")

    async def has_user(self, user_id: str) -> bool:
        return False

    def is_ready(self) -> bool:
        return False


@asynccontextmanager
async def listening(subject: Subject) -> AsyncGenerator[str]:
    """Somebody listens for the homeserver, with our hs_token: the bridge, if it runs. "", or why
    nobody does."""
    if subject.health is not None or subject.holds_database:
        yield ""
        return
    config = subject.config.appservice
    appservice = Appservice(config.hs_token.get_secret_value(), _Nobody())
    try:
        await listen(appservice.start, config.hostname, config.port)
    except PortTakenError as error:
        yield str(error)
        return
    try:
        yield ""
    finally:
        await appservice.close()

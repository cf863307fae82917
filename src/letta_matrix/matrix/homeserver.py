"""The homeserver, and our users on it."""

from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.requests import HomeserverUnavailable, Requests

__all__ = ["Homeserver", "HomeserverUnavailable"]


class Homeserver(Requests):
    """Takes requests (see `Requests`), and makes every intent."""

    def acting_as(self, user_id: str) -> Intent:
        """What one of our users does there."""
        return Intent(self, user_id)

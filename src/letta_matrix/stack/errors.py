"""What can go wrong while the embedded servers start."""


class StackError(Exception):
    """The embedded stack cannot start or go on; one line that says what to do."""


class BadFlagError(StackError):
    """It cannot with what was typed; the line says what to type instead."""


class TooSoonError(StackError):
    """The homeserver does not do this again yet; `wait` is in seconds."""

    def __init__(self, says: str, wait: float) -> None:
        super().__init__(f"{says}; the next one in {wait:.0f} s")
        self.wait = wait


class PasswordRefusedError(StackError):
    """The homeserver does not take the password (any more)."""

"""What can go wrong while the embedded servers start."""


class StackError(Exception):
    """The embedded stack cannot start or go on; one line that says what to do."""


class PasswordRefusedError(StackError):
    """The homeserver does not take the password (any more)."""

"""What can go wrong while the embedded servers start."""


class StackError(Exception):
    """The embedded stack cannot start or go on; one line that says what to do."""


class BadFlagError(StackError):
    """It cannot with what was typed; the line says what to type instead."""


class PasswordRefusedError(StackError):
    """The homeserver does not take the password (any more)."""

"""Faults of the commands themselves."""


class BadInput(Exception):
    """What was typed cannot be used; one line that says what to type instead."""


class Failure(Exception):
    """What was asked for did not work; one line that says why."""


class Unreachable(Failure):
    """A server did not answer; it may be back in a moment."""

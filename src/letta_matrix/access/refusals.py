"""Why somebody does not come in."""

import math


class Unauthorized(Exception):
    """No token, or none that is accepted; the text says why.

    `error` is RFC 6750's word for it (section 3.1), "" where no token came at all.
    """

    def __init__(self, text: str, error: str = "invalid_token") -> None:
        super().__init__(text)
        self.error = error


class IdentityUnavailable(Unauthorized):
    """Who knows about a token, its issuer or the homeserver, cannot be asked now: nobody can
    tell whether it is good.

    `retry_after` is in seconds.
    """

    retry_after = 10.0

    def __init__(self, text: str = "The token's issuer does not give out its keys now.") -> None:
        super().__init__(f"{text} Try again in a minute.")


class TooOften(Exception):
    """Too much at a time, as `reason` says; `retry_after` is in seconds."""

    def __init__(self, retry_after: float, reason: str = "Too many requests.") -> None:
        super().__init__(f"{reason} Try again in {math.ceil(retry_after)} seconds.")
        self.retry_after = retry_after

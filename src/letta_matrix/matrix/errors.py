"""What the homeserver's errors mean: a refusal is for good, everything else may pass."""

from mautrix.errors import MatrixRequestError

_ABOUT_THE_REQUEST = {400, 413, 414, 415, 431}
"""Without an errcode too, trying the same again changes nothing: malformed or too large."""

_TOKEN_FAULTS = {
    "M_UNKNOWN_TOKEN": (
        "the homeserver does not know our as_token: list registration.yaml in its "
        "app_service_config_files and restart it"
    ),
    "M_MISSING_TOKEN": (
        "the homeserver got no token from us: a proxy in between must pass on the "
        "Authorization header"
    ),
}


class ServerSilent(MatrixRequestError):
    """Another server, whose answer a request takes, did not give it in `seconds`. It may have got
    the request all the same."""

    def __init__(self, server: str, seconds: float) -> None:
        text = f"{server} did not answer within {seconds:g} s: if that is its name, try again later"
        super().__init__(text)
        self.http_status = 504
        self.errcode = "M_CONNECTION_TIMEOUT"
        self.message = text


def is_refusal(error: MatrixRequestError) -> bool:
    """Whether the homeserver said no to this request, so that trying again is of no use.

    A 4xx that is about our token, or that carries no Matrix errcode (a reverse proxy's own
    answer), says nothing about the request.
    """
    status, errcode = error.http_status, error.errcode
    if not 400 <= status < 500 or errcode in _TOKEN_FAULTS:
        return False
    return status in _ABOUT_THE_REQUEST or bool(errcode)


def is_about_another(error: MatrixRequestError) -> bool:
    """Whether the homeserver says that another one, which it asked for this, does not answer.

    A proxy in front of ours answers 502 and 504, too, but without a Matrix errcode.
    """
    return error.http_status in (502, 504) and bool(error.errcode)


def refusal(error: MatrixRequestError) -> str:
    """One line about what the homeserver, or a proxy in front of it, refused, for an operator."""
    if isinstance(error, ServerSilent):
        return str(error)
    if (told := _TOKEN_FAULTS.get(str(error.errcode))) is not None:
        return told
    if not error.errcode and error.http_status < 500:
        return (
            f"HTTP {error.http_status} that is not of Matrix: does homeserver.url lead to the "
            "homeserver, and does a proxy in between pass on /_matrix?"
        )
    return f"the homeserver refused: {error.errcode or error.http_status}: {error.message or error}"

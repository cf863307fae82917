"""What the homeserver's errors mean: a refusal is for good, everything else may pass."""

from mautrix.errors import MatrixRequestError

_TOO_LARGE = {413, 414, 431}
"""Without an errcode too, trying the same again changes nothing."""
_ODD = {400, 415}
"""Without an errcode: a proxy's answer to this request, or to whatever we send (nginx says 400 to
http:// at its port for https://)."""
_GATEWAY_ERRORS = {502, 503, 504}
"""From a proxy whose homeserver is gone; those of the homeserver itself carry an errcode."""

_PASSING = {
    "M_UNKNOWN_TOKEN": (
        "the homeserver does not know our as_token: list registration.yaml in its "
        "app_service_config_files and restart it"
    ),
    "M_MISSING_TOKEN": (
        "the homeserver got no token from us: a proxy in between must pass on the "
        "Authorization header"
    ),
    "M_RESOURCE_LIMIT_EXCEEDED": "the homeserver serves nobody now, as its admin has decided",
}
"""Errors that are about no request, with what an operator should know."""
_MEDIA_OFF = (
    "the homeserver has no media repository there (M_UNRECOGNIZED): it is off (Synapse: "
    "enable_media_repo), or a proxy in between does not pass on /_matrix/media to who has it"
)


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

    A 4xx that is about our token or about everybody, or that carries no Matrix errcode (a
    reverse proxy's own answer), says nothing about the request.
    """
    status, errcode = error.http_status, error.errcode
    if not 400 <= status < 500 or errcode in _PASSING:
        return False
    return status in _TOO_LARGE or bool(errcode)


def is_misrouted(error: MatrixRequestError) -> bool:
    """Whether an endpoint is unknown where every homeserver has it: one of its workers that does
    not serve it was asked, or the address has a path too many."""
    return error.errcode == "M_UNRECOGNIZED"


def may_be_about_the_request(error: MatrixRequestError) -> bool:
    """Of what is no refusal: whether it may fail at this request alone, however often."""
    if error.errcode:
        fails = error.http_status >= 500 and error.http_status not in _GATEWAY_ERRORS
        return fails or is_misrouted(error)
    return error.http_status in _ODD


def is_about_another(error: MatrixRequestError) -> bool:
    """Whether the homeserver says that another one, which it asked for this, does not answer.

    A proxy in front of ours answers 502 and 504, too, but without a Matrix errcode.
    """
    return error.http_status in (502, 504) and bool(error.errcode)


def refusal(error: MatrixRequestError) -> str:
    """One line about what the homeserver, or a proxy in front of it, refused, for an operator."""
    if isinstance(error, ServerSilent):
        return str(error)
    if (told := _PASSING.get(str(error.errcode))) is not None:
        return told
    if not error.errcode and error.http_status in _TOO_LARGE:
        return f"HTTP {error.http_status}: too large for a proxy before the homeserver"
    if not error.errcode and error.http_status < 500:
        return not_of_matrix(f"HTTP {error.http_status}")
    if is_misrouted(error):
        return (
            "the homeserver does not know what we ask for (M_UNRECOGNIZED): homeserver.url is its "
            "address without a path behind it, and a proxy in between passes on all of /_matrix"
        )
    return f"the homeserver refused: {error.errcode or error.http_status}: {error.message or error}"


def why(error: Exception) -> str:
    """One line about what went wrong with the homeserver, for an operator."""
    return refusal(error) if isinstance(error, MatrixRequestError) else str(error)


def not_of_matrix(what: str) -> str:
    """One line about an answer that no homeserver gives."""
    if what.endswith(": write that"):
        return what
    return (
        f"not an answer of Matrix: {what}. Does homeserver.url lead to the homeserver, and does a "
        "proxy in between pass on /_matrix?"
    )


def reason_of(error: MatrixRequestError) -> str:
    """Status, code and words of an error."""
    return f"HTTP {error.http_status} {error.errcode or ''} {error.message or ''}".strip()


def refused_request(error: MatrixRequestError) -> str:
    """As `refusal`, behind the request that was refused, for those who did not make it."""
    requests: list[str] = getattr(error, "__notes__", [])
    is_media = is_misrouted(error) and "media/" in "".join(requests[:1])
    return ": ".join([*requests[:1], _MEDIA_OFF if is_media else refusal(error)])

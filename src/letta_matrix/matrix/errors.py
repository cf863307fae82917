"""What the homeserver's errors mean: a refusal is for good, everything else may pass."""

from mautrix.errors import MatrixRequestError, MatrixStandardRequestError

_TOO_LARGE = {413, 414, 431}
"""Without an errcode too, trying the same again changes nothing."""
_ODD = {400, 415}
"""Without an errcode: a proxy's answer to this request, or to whatever we send (nginx says 400 to
http:// at its port for https://)."""
_NOT_IMPLEMENTED = 501
_GATEWAY_ERRORS = {502, 503, 504}
"""From a proxy whose homeserver is gone; those of the homeserver itself carry an errcode."""

NOT_REGISTERED = (
    "the homeserver does not know our as_token: list registration.yaml in its "
    "app_service_config_files and restart it (docs/how-to/other-homeservers.md: how others than "
    "Synapse are told)"
)
_PASSING = {
    "M_UNKNOWN_TOKEN": NOT_REGISTERED,
    "M_MISSING_TOKEN": (
        "the homeserver got no token from us: a proxy in between must pass on the "
        "Authorization header"
    ),
    "M_RESOURCE_LIMIT_EXCEEDED": "the homeserver serves nobody now, as its admin has decided",
}
"""Errors that are about no request, with what an operator should know."""
_LACKING = {
    "media/": (
        "the homeserver has no media repository there (M_UNRECOGNIZED): it is off (Synapse: "
        "enable_media_repo), or a proxy in between does not pass on /_matrix/media to who has it"
    ),
    "/admin/": (
        "the homeserver has no admin API of Synapse there (M_UNRECOGNIZED): it is another one, or "
        "a proxy in between does not pass on /_synapse/admin"
    ),
}
"""What is not there, by what is in the path of the request."""


class ServerSilent(MatrixStandardRequestError):
    """Another server, whose answer a request takes, did not give it in `seconds`. It may have got
    the request all the same."""

    errcode = "M_CONNECTION_TIMEOUT"

    def __init__(self, server: str, seconds: float) -> None:
        text = f"{server} did not answer within {seconds:g} s: if that is its name, try again later"
        super().__init__(504, text)


class OwnSession(MatrixStandardRequestError):
    """The homeserver keeps our own token as a session, which would end with all others of the
    account."""

    errcode = "M_FORBIDDEN"

    def __init__(self, device_id: str) -> None:
        text = (
            f"not done, as the bridge's own token is one of the sessions ({device_id}): end the "
            "others one by one, and the account's password, by the homeserver's own means"
        )
        super().__init__(400, text)


def is_refusal(error: MatrixRequestError) -> bool:
    """Whether the homeserver said no to this request, so that trying again is of no use.

    A 4xx that is about our token or about everybody, or that carries no Matrix errcode (a
    reverse proxy's own answer), says nothing about the request. Dendrite says 501 of what is
    switched off.
    """
    status, errcode = error.http_status, error.errcode
    if status == _NOT_IMPLEMENTED:
        return bool(errcode)
    if not 400 <= status < 500 or errcode in _PASSING:
        return False
    return status in _TOO_LARGE or bool(errcode)


def is_about_token(error: MatrixRequestError) -> bool:
    """Whether the homeserver does not know our token; at a ping those of the Conduit family have
    an errcode of their own for that."""
    told = error.errcode
    return told == "M_UNKNOWN_TOKEN" or (told == "M_UNAUTHORIZED" and error.http_status == 401)


def is_misrouted(error: MatrixRequestError) -> bool:
    """Whether an endpoint is unknown: the homeserver has no such thing, one of its workers that
    does not serve it was asked, or the address has a path too many."""
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
    if isinstance(error, ServerSilent | OwnSession):
        return str(error)
    if (told := _PASSING.get(str(error.errcode))) is not None:
        return told
    if not error.errcode and error.http_status in _TOO_LARGE:
        return f"HTTP {error.http_status}: too large for a proxy before the homeserver"
    if not error.errcode and error.http_status < 500:
        return not_of_matrix(f"HTTP {error.http_status}")
    if is_misrouted(error):
        return (
            "the homeserver does not know what we ask for (M_UNRECOGNIZED): homeserver.url has a "
            "path too many, a proxy in between does not pass on all of /_matrix, or it has no such "
            "request (docs/how-to/other-homeservers.md)"
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
    told = refusal(error)
    if is_misrouted(error):
        lacking = (text for part, text in _LACKING.items() if part in "".join(requests[:1]))
        told = next(lacking, told)
    return ": ".join([*requests[:1], told])

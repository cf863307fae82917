"""Signing in with a password, as people do, for what no application service may do."""

from mautrix.api import ClientPath, Method

from letta_matrix.matrix import answers
from letta_matrix.matrix.requests import Requests

_DEVICE = "letta-matrix"


async def log_in(
    homeserver: Requests, username: str, password: str, *, give_up_after: float = 60.0
) -> str:
    """An access token, always of the same device (spec: Login). Raises MatrixRequestError, also
    where the password is wrong, and HomeserverUnavailable."""
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": username},
        "password": password,
        "device_id": _DEVICE,
        "initial_device_display_name": _DEVICE,
    }
    answer = await homeserver.with_token("").request(
        Method.POST,
        ClientPath.v3.login,
        body,
        give_up_after=give_up_after,
        shape=answers.having("access_token", str),
    )
    return str(answer["access_token"])


async def log_out(homeserver: Requests, token: str) -> None:
    """End the session of a token. Raises as `log_in`."""
    await homeserver.with_token(token).request(Method.POST, ClientPath.v3.logout, {})

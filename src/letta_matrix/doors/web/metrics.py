"""`/metrics`, for Prometheus: figures that are nobody's business without a token."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from letta_matrix.access.guard import problem
from letta_matrix.access.metadata import challenge, scope_challenge
from letta_matrix.access.principal import Principal, Scope
from letta_matrix.access.refusals import IdentityUnavailable, TooOften, Unauthorized
from letta_matrix.common.once import Once
from letta_matrix.operations.records import StoreUnavailable

Admit = Callable[[str | None, str], Awaitable[Principal]]
"""As `Authenticator.admit`."""

_SCOPES = (Scope.METRICS, Scope.ADMIN)


class Shown(Protocol):
    """What has the metrics."""

    def shown(self, accept: str) -> tuple[bytes, str]:
        """All of them in a format that the header `Accept` takes, and the name of that."""
        ...


def metrics_route(admit: Admit, metrics: Once[Shown]) -> Route:
    """`/metrics`, for tokens with the scope `metrics` or `admin`."""

    async def answer(request: Request) -> Response:
        if (refusal := await _refusal(request, admit)) is not None:
            return refusal
        shown = await metrics.get()
        body, content_type = shown.shown(request.headers.get("Accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    return Route("/metrics", answer)


async def _refusal(request: Request, admit: Admit) -> Response | None:
    peer = request.client.host if request.client is not None else ""
    try:
        principal = await admit(request.headers.get("Authorization"), peer)
    except IdentityUnavailable as error:
        return problem(503, "unavailable", str(error), {"Retry-After": f"{error.retry_after:.0f}"})
    except Unauthorized as error:
        headers = {"WWW-Authenticate": challenge(error)}
        return problem(401, "unauthorized", str(error), headers)
    except TooOften as error:
        wait = {"Retry-After": f"{error.retry_after + 1:.0f}"}
        return problem(429, "rate-limited", str(error), wait)
    except StoreUnavailable as error:
        return problem(503, "unavailable", str(error))
    if not principal.scopes.intersection(_SCOPES):
        text = f"This needs a token with the scope `{Scope.METRICS}`."
        challenged = {"WWW-Authenticate": scope_challenge(Scope.METRICS)}
        return problem(403, "forbidden", text, challenged)
    return None

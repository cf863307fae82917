"""How all stands, told again whenever it changes."""

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from fastapi import Depends, Request, Response

from letta_matrix.access.authenticator import TooOften, Unauthorized
from letta_matrix.access.faults import ToolError
from letta_matrix.access.principal import Principal, Scope
from letta_matrix.common import clock
from letta_matrix.common.waiting import is_set
from letta_matrix.doors.rest import problems
from letta_matrix.doors.rest.calling import do
from letta_matrix.doors.rest.event_stream import STREAM, EventStream, event, framed
from letta_matrix.doors.rest.presence import Presence
from letta_matrix.doors.rest.problems import Problem, may
from letta_matrix.doors.rest.routing import router_for
from letta_matrix.doors.rest.security import Admin, Api, follows, needs
from letta_matrix.doors.rest.services import Services
from letta_matrix.operations.records import StoreUnavailable

router = router_for("overview")

EVERY = 1.0
"""Seconds between two looks; more where a look takes long, so that it takes 5% of the time."""
_SHARE = 20
_BEAT = 5.0
"""Seconds after which the health is told again, with its figures, though nothing is new."""

_MOVING = (
    *("uptime_seconds", "homeserver_writes", "homeserver_latency_ms", "counters", "runtimes"),
    "replica",
)
"""What the health report tells that changes all the time."""

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "As it changes",
        "content": {STREAM: {"example": "event: approvals\ndata: []\n\n"}},
    }
}


@router.get(
    "/overview/events",
    dependencies=[Depends(follows)],
    response_class=Response,
    responses=may("rate-limited", "unavailable") | _RESPONSES,
    openapi_extra=needs(Scope.ADMIN),
)
async def follow_overview(request: Request, holder: Admin, api: Api) -> Response:
    """Show how all stands as server-sent events: `health`, `agents`, `runtimes`, `turns`,
    `failures` and `approvals` at once, and each again when it has changed.

    Their data are those of `/overview` and `/health`; of `agents`, after the first time, those
    that have changed. It goes on until the client goes away, or ends with `error` and a problem.
    """
    return EventStream(_events(Presence(request), api, holder))


async def _events(caller: Presence, api: Services, holder: Principal) -> AsyncGenerator[bytes]:
    news = News()
    try:
        while True:
            await caller.confirm()
            began = clock.now()
            found = await do(api, holder, "overview.get", {})
            for name, data in news.of({"health": dict(api.health()), **found}, began):
                yield event(name, data)
            took = clock.now() - began
            await is_set(api.stopping, max(EVERY, _SHARE * took))
    except (Problem, ToolError, Unauthorized, TooOften, StoreUnavailable) as error:
        yield framed("error", bytes(problems.response(problems.problem_of(error)).body))


class News:
    """What of an overview its reader has not been told yet."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str | None], str] = {}
        self._beat_at = 0.0

    def of(self, overview: Mapping[str, Any], now: float) -> list[tuple[str, Any]]:
        """The parts that have changed by a time (as `clock.now` tells it)."""
        told: list[tuple[str, Any]] = []
        for name, data in overview.items():
            if name == "agents":
                changed = [one for one in data if self._is_new(name, one, one["agent_id"])]
                if self._is_new(name, True) or changed:
                    told.append((name, changed))
            elif name == "health":
                still = {key: value for key, value in data.items() if key not in _MOVING}
                if self._is_new(name, still) or now >= self._beat_at:
                    self._beat_at = now + _BEAT
                    told.append((name, data))
            elif self._is_new(name, data):
                told.append((name, data))
        return told

    def _is_new(self, part: str, data: object, one: str | None = None) -> bool:
        """Whether a part, or `one` in it, is otherwise than it was told last."""
        text = json.dumps(data, sort_keys=True)
        before, self._told[part, one] = self._told.get((part, one)), text
        return before != text

"""Tells a Matrix room what is done with tools."""

import asyncio
import contextlib
import html
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.errors import why
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.store.audit import AuditEntry

log = structlog.get_logger()

_EVERY = 3.0
_AFTER_FAILURE = 15.0
_MOST_LINES = 25
_MOST_KEPT = 2_000
_LONGEST_NAME = 300
_FAREWELL = 1.0

_FAILURES = (MatrixRequestError, HomeserverUnavailable)
_PASSING = (401, 403, 429)
"""Refusals that are not about the notice: of the bridge or the bot, as long as they last."""


@dataclass(frozen=True, slots=True)
class _Notice:
    """What the room is told next; `calls` are those it stands for."""

    txn: str
    content: dict[str, object]
    calls: int


class AuditMirror:
    """Give it each call that ended; `run()` says them in the room, several in one notice, one
    notice every few seconds at most.

    Notices by the bot prompt nobody. While the room cannot be written to, a limited number is
    kept; how many more there were is told in the room, as are those of a notice it refuses.
    """

    def __init__(self, room_id: str, bot: Intent) -> None:
        self._room_id = room_id
        self._bot = bot
        self._kept: deque[AuditEntry] = deque()
        self._dropped = 0
        self._notice: _Notice | None = None
        self._failed = False
        self._some = asyncio.Event()

    def __call__(self, entry: AuditEntry) -> None:
        if len(self._kept) >= _MOST_KEPT:
            self._kept.popleft()
            self._dropped += 1
        self._kept.append(entry)
        self._some.set()

    async def run(self) -> None:
        """Tell the room, for ever."""
        while True:
            await self._some.wait()
            await asyncio.sleep(_AFTER_FAILURE if self._failed else _EVERY)
            await self._tell()

    async def close(self) -> None:
        """Say what there is left, if that is possible at once."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                while self._some.is_set() and not self._failed:
                    await self._tell()
        if self._some.is_set():
            log.warning("the last calls of tools were not told in the audit room")

    async def _tell(self) -> None:
        # The same notice until it is there: the homeserver knows it by its txn id.
        if self._notice is None:
            self._notice = self._next_notice()
        try:
            await self._bot.send(
                self._room_id,
                "m.room.message",
                self._notice.content,
                self._notice.txn,
                give_up_after=0,
                look_first=self._failed,
            )
        except _FAILURES as error:
            if not _is_final(error):
                self._note(error)
                return
            self._drop(self._notice, error)
        self._failed, self._notice = False, None
        if not self._kept:
            self._some.clear()

    def _next_notice(self) -> _Notice:
        count = min(_MOST_LINES, len(self._kept))
        entries = [self._kept.popleft() for _ in range(count)]
        transaction = txn_id("audit", *(part for entry in entries for part in _cause(entry)))
        dropped, self._dropped = self._dropped, 0
        return _Notice(transaction, _notice(entries, dropped, transaction), count + dropped)

    def _drop(self, notice: _Notice, error: Exception) -> None:
        self._dropped += notice.calls
        log.error(
            "the audit room refused a notice",
            room=self._room_id,
            calls=notice.calls,
            reason=why(error),
        )

    def _note(self, error: Exception) -> None:
        if not self._failed:
            log.warning(
                "the audit room cannot be written to", room=self._room_id, reason=why(error)
            )
        self._failed = True


def _is_final(error: Exception) -> bool:
    """Whether the homeserver will never take this notice."""
    if not isinstance(error, MatrixRequestError):
        return False
    return 400 <= error.http_status < 500 and error.http_status not in _PASSING


def _cause(entry: AuditEntry) -> tuple[str, ...]:
    # What could not be stored has no number of its own.
    return str(entry.seq), repr(entry.at), entry.principal


def _notice(entries: Sequence[AuditEntry], dropped: int, transaction: str) -> dict[str, object]:
    lost = [f"{dropped} calls are missing here; the audit log has them."] if dropped else []
    return {
        "msgtype": "m.notice",
        "body": "\n".join([*lost, *map(_line, entries)]),
        "format": "org.matrix.custom.html",
        "formatted_body": "<br>".join([*lost, *map(_html_line, entries)]),
        "m.mentions": {},
        MARKER: {"txn": transaction},
    }


def _line(entry: AuditEntry) -> str:
    return f"{_told(entry)} {_link(entry)}".rstrip()


def _html_line(entry: AuditEntry) -> str:
    link = html.escape(_link(entry))
    return html.escape(_told(entry)) + (f' <a href="{link}">event</a>' if link else "")


def _told(entry: AuditEntry) -> str:
    where = f" in {_short(entry.room_id)}" if entry.room_id else ""
    how = "" if entry.outcome == "ok" else f": {entry.outcome}"
    who = _short(entry.principal)
    return f"{who} as {entry.user_id} ({entry.door}): {entry.tool}{where}{how}"


def _link(entry: AuditEntry) -> str:
    """The event's matrix.to address (spec appendix "matrix.to navigation"), "" without one."""
    if not entry.room_id or not entry.event_id:
        return ""
    room, event = quote(entry.room_id, safe=""), quote(entry.event_id, safe="")
    via = quote(entry.user_id.partition(":")[2], safe="")
    return f"https://matrix.to/#/{room}/{event}?via={via}"


def _short(text: str) -> str:
    return " ".join(clean_text(text[:_LONGEST_NAME]).split())

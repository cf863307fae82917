"""What agents of a Letta API say outside the turns run here: other runs, read by their ids."""

import json
from collections.abc import Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from letta_matrix.common.json_fields import (
    Json,
    as_texts,
    id_of,
    mapping,
    parse_json,
    string_of,
    text_of,
)
from letta_matrix.runtimes.faults import RuntimeRefused, RuntimeUnavailable
from letta_matrix.runtimes.letta_api.history import ANSWER, PROMPTS
from letta_matrix.runtimes.letta_api.pages import PAGE, pages
from letta_matrix.runtimes.letta_api.reader import ENDED
from letta_matrix.runtimes.speech import Said, Speech

if TYPE_CHECKING:
    from letta_matrix.runtimes.letta_api.client import Client

MAX_OPEN = 10
"""Unfinished runs that a cursor remembers; one more, and the oldest is given up."""
MAX_PAGES = 20
"""Pages of new runs that one look reads; the next look goes on from there."""


@dataclass(slots=True)
class _Cursor:
    """The newest run seen, and the older ones that had not ended then."""

    newest: str = ""
    open_runs: list[str] = field(default_factory=list[str])

    @classmethod
    def load(cls, text: str) -> "_Cursor":
        value = mapping(parse_json(text))
        return cls(string_of(value, "newest"), as_texts(value.get("open")))

    def dump(self) -> str:
        return json.dumps({"newest": self.newest, "open": self.open_runs[-MAX_OPEN:]})


async def said_since(client: "Client", agent_id: str, cursor: str | None, ours: Set[str]) -> Said:
    """See `AgentRuntime.said_since`; at most `MAX_PAGES` pages of runs at a time.

    `ours` are runs known to be of Matrix: their messages need not be read to know it.

    Raises:
        RuntimeUnavailable, RuntimeRefused: as the client.
    """
    if cursor is None:
        return Said([], (await _now(client, agent_id)).dump())
    place = _Cursor.load(cursor)
    earlier = [await client.run(run_id) for run_id in place.open_runs]
    try:
        later = await _runs_after(client, agent_id, place.newest)
    except RuntimeUnavailable:
        raise
    except RuntimeRefused:
        # The run at the cursor was deleted: nothing tells what came after it.
        return Said([], (await _now(client, agent_id)).dump())
    runs = [run for run in earlier if run is not None] + later
    place.open_runs = [id_of(run) for run in runs if str(run.get("status")) not in ENDED]
    place.newest = id_of(later[-1]) if later else place.newest
    speeches: list[Speech] = []
    for run in runs:
        if run.get("status") == "completed" and id_of(run) not in ours:
            speeches += await _speeches(client, run)
    return Said(speeches, place.dump(), more=len(later) >= MAX_PAGES * PAGE)


async def _runs_after(client: "Client", agent_id: str, newest: str) -> list[Json]:
    """The runs that began after one, oldest first."""
    found: dict[str, Json] = {}

    async def page_after(after: str | None) -> list[Json]:
        return await client.runs(agent_id, order="asc", after=after or newest)

    async for page in pages(page_after, MAX_PAGES):
        found |= {id_of(run): run for run in page if id_of(run)}
    return list(found.values())


async def _now(client: "Client", agent_id: str) -> _Cursor:
    runs = await client.runs(agent_id, order="desc")
    runs = [run for run in runs if id_of(run)]
    running = [id_of(run) for run in reversed(runs) if str(run.get("status")) not in ENDED]
    return _Cursor(id_of(runs[0]) if runs else "", running)


async def _speeches(client: "Client", run: Json) -> list[Speech]:
    """What a run said, unless its prompt is a Matrix event, or cannot be seen."""
    messages = await client.run_messages(id_of(run))
    conversation_id = str(run.get("conversation_id") or "default")
    prompts = [message for message in messages if message.get("message_type") in PROMPTS]
    if not prompts and any(message.get("message_type") == ANSWER for message in messages):
        # It goes on after an approval: the prompt is that of an earlier run.
        history = await client.conversation_messages(conversation_id)
        prompts = _prompt_before(history, id_of(run))
    if not prompts or any(str(prompt.get("otid") or "").startswith("$") for prompt in prompts):
        return []
    texts: dict[str, str] = {}
    for message in messages:
        if message.get("message_type") == "assistant_message":
            texts[id_of(message)] = texts.get(id_of(message), "") + text_of(message.get("content"))
    return [
        Speech(message_id, conversation_id, text)
        for message_id, text in texts.items()
        if message_id and text.strip()
    ]


def _prompt_before(newest_first: list[Json], run_id: str) -> list[Json]:
    """The last prompt before a run, if the page reaches as far back."""
    places = [i for i, message in enumerate(newest_first) if message.get("run_id") == run_id]
    earlier = newest_first[places[-1] + 1 :] if places else []
    return [message for message in earlier if message.get("message_type") in PROMPTS][:1]

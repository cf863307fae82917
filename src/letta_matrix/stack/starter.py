"""The two agents a newcomer finds; made only where there are none."""

from dataclasses import dataclass
from pathlib import Path

from letta_matrix.common.json_fields import Json, as_list
from letta_matrix.common.private_files import write_private
from letta_matrix.stack.app_server import Control
from letta_matrix.stack.errors import StackError
from letta_matrix.stack.models import DEMO_HANDLE, ModelChoice

_PAGE = 100


@dataclass(frozen=True, slots=True)
class Starter:
    """A starter agent: its name, one line about it, and who it is in its own words."""

    name: str
    description: str
    persona: str


STARTERS = (
    Starter(
        "Meridian",
        "A calm guide who helps you find your way.",
        "I am Meridian, a guide. I live on Matrix: people write to me in a chat room, and my "
        "answers appear there as I write them. I help people see where they stand and what the "
        "next step is. I ask one good question rather than five. I write short, warm, plain "
        "messages, in Markdown where it helps, in the language I am written to in. I keep what "
        "people tell me about themselves and their work in my memory and come back to it. When "
        "I do not know something, I say so.",
    ),
    Starter(
        "Ada",
        "A precise engineer who likes to build and to explain.",
        "I am Ada, an engineer. I live on Matrix: people write to me in a chat room, and my "
        "answers appear there as I write them. I like exact questions, small experiments and "
        "code that can be read aloud. I think first, then answer with the result, then the "
        "reasons. I show code in fenced blocks. Before a tool changes anything I say what it "
        "will do. I remember the projects people work on. I admit mistakes at once and fix them.",
    ),
)
_DEFAULT = "local/default"
_HUMAN = "Someone who has just set up letta-matrix. I will learn their name and what they do."


async def model_handle(control: Control, choice: ModelChoice) -> str:
    """The model to give new agents: the chosen one, else the first its provider lists.

    Raises:
        StackError: the provider lists no model.
    """
    if choice.handle:
        return choice.handle
    answer = await control.request("list_models")
    for entry in as_list(answer.get("entries")):
        handle = str(entry.get("handle", ""))
        if handle.startswith(f"{choice.provider}/"):
            return handle
    raise StackError(f"{choice.origin}: it lists no model; check the key, or name one by --model")


async def create_starters(control: Control, model: str, note: Path) -> list[str]:
    """Create the starter agents if there is no agent at all; the names of those created.

    The file `note` exists while they are being made: whoever is ended half way makes the
    missing ones at the next start.

    Raises:
        StackError: refused.
    """
    there = {str(agent.get("name", "")) for agent in await _all_agents(control)}
    missing = _begin(there, note)
    for starter in missing:
        await control.request("agent_create", body=_body(starter, model))
    _end(note)
    return [starter.name for starter in missing]


async def leave_gone_models(control: Control, model: str, *, demo: bool) -> list[str]:
    """Give agents another model than the App Server's default, which it does not know any more
    after a restart, and than the demo model unless that is to be used; their names.

    Raises:
        StackError: refused.
    """
    moved: list[str] = []
    for agent in await _all_agents(control):
        now = str(agent.get("model", ""))
        if now.endswith(_DEFAULT) or (now == DEMO_HANDLE and not demo):
            await control.request("agent_update", agent_id=agent["id"], body={"model": model})
            moved.append(str(agent.get("name", "")))
    return moved


async def list_names(control: Control) -> list[str]:
    """The names of all agents, starters first. Raises StackError when the listing is refused."""
    names = [str(agent.get("name", "")) for agent in await _all_agents(control)]
    starters = [starter.name for starter in STARTERS if starter.name in names]
    return starters + [name for name in names if name not in starters]


def _begin(there: set[str], note: Path) -> list[Starter]:
    """The starters to be made now."""
    if there and not note.exists():
        return []
    write_private(note, "Starter agents are being made; the next start makes the missing ones.\n")
    return [starter for starter in STARTERS if starter.name not in there]


def _end(note: Path) -> None:
    note.unlink(missing_ok=True)


async def _all_agents(control: Control) -> list[Json]:
    agents: dict[object, Json] = {}
    query: Json = {"limit": _PAGE}
    while True:
        answer = await control.request("agent_list", query=query)
        page = as_list(answer.get("agents"))
        known = len(agents)
        agents |= {agent["id"]: agent for agent in page}
        # A server that ignores `after` would answer the same page for ever.
        if len(page) < _PAGE or len(agents) == known:
            return list(agents.values())
        query = {"limit": _PAGE, "after": page[-1]["id"]}


def _body(starter: Starter, model: str) -> Json:
    return {
        "name": starter.name,
        "description": starter.description,
        "model": model,
        "memory_blocks": [
            {"label": "persona", "value": starter.persona},
            {"label": "human", "value": _HUMAN},
        ],
    }

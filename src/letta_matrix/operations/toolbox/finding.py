"""Which agent somebody means."""

import difflib
from collections.abc import Sequence

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.store.agents import Agent, meant

_NAMED = 10


def find_agent(ref: str, agents: Sequence[Agent]) -> Agent:
    """The one of `agents` that is meant. Raises ToolError, which names those that could be."""
    fits = meant(ref, agents)
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise ToolError(_ambiguous(ref, fits), Fault.AMBIGUOUS)
    names = sorted(agent.name for agent in agents)
    near = difflib.get_close_matches(ref, names, n=1, cutoff=0.5)
    perhaps = f" Did you mean {code(near[0])}?" if near else ""
    others = ", ".join(code(name, limit=80) for name in names[:_NAMED]) or "none"
    more = ", ..." if len(names) > _NAMED else ""
    text = f"There is no agent {code(ref)}.{perhaps} Others are: {others}{more}."
    raise ToolError(text, Fault.NOT_FOUND)


def _ambiguous(ref: str, agents: Sequence[Agent]) -> str:
    lines = [f"{len(agents)} agents are called {code(ref)}; give the id of the one you mean:", ""]
    lines += [f"- {code(one.agent_id, limit=255)} · {code(one.runtime)}" for one in agents[:_NAMED]]
    return "\n".join(lines)

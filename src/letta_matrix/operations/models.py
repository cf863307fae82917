"""Which model an agent is to think with, among those its runtime has."""

import difflib
from collections.abc import Sequence

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.runtimes.protocol import Capabilities


def check_models(runtime: str, abilities: Capabilities) -> None:
    """Raises ToolError where a runtime keeps its agents' models to itself."""
    if not abilities.models:
        raise ToolError(
            f"The runtime {code(runtime)} neither tells nor switches its agents' models: do "
            "that in the runtime itself.",
            Fault.CONFLICT,
        )


def chosen(wanted: str, available: Sequence[str]) -> str:
    """The model that is meant, whatever its case. Raises ToolError."""
    alike = [name for name in available if name.lower() == wanted.lower()]
    if wanted in available or len(alike) == 1:
        return wanted if wanted in available else alike[0]
    if not available:
        # It may know models that it does not list; it refuses what it does not know.
        return wanted
    near = difflib.get_close_matches(wanted, available, n=1, cutoff=0.5)
    meant = f" Did you mean {code(near[0])}?" if near else ""
    text = f"There is no model {code(wanted)}.{meant} `!model` lists them."
    raise ToolError(text, Fault.NOT_FOUND)

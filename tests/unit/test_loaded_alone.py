"""What a bridge that waits does not hold in memory."""

import subprocess
import sys

_UNUSED = {"rich", "colorama", "twisted", "greenlet", "frozenlist._frozenlist"}
"""What libraries load besides."""
_LATER = {"prometheus_client", "fastapi", "mcp", "websockets", "letta_client", "openai"}
"""What is loaded when somebody comes."""


def test_a_bridge_begins_without_what_it_may_never_need() -> None:
    code = (
        "import sys\n"
        "from letta_matrix.app import bridge\n"
        f"print(*({_UNUSED | _LATER} & sys.modules.keys()))\n"
        "import prometheus_client, frozenlist._frozenlist\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

"""What a run is doing, for the person at the terminal."""

import sys
import time


def say(what: str) -> None:
    """Show one line."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)

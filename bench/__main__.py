"""`python -m bench`: run everything, print the table, write `build/bench.json`."""

import argparse
import asyncio
import platform
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from rich.console import Console

from bench import echoes, provisioning, scale
from bench.figures import Figures, at_most
from bench.homeserver import Homeserver
from bench.plan import QUICK, WHOLE, Plan
from bench.ports import FIRST_PORT, Ports
from bench.program import ROOT, Program
from bench.scene import Scene

_console = Console(stderr=True)


def main() -> int:
    """Parse the command line and run; 0 also when a target is missed: the table says so."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run of about two minutes")
    parser.add_argument("--first-port", type=int, default=FIRST_PORT, metavar="N")
    parser.add_argument("--keep", action="store_true", help="leave the servers' files for a look")
    parser.add_argument("--only", choices=("memory", "app-server"), help="one half of it")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench.json")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-", delete=not options.keep) as directory:
        figures = asyncio.run(_until_signalled(options, Path(directory)))
    about: dict[str, object] = {
        "quick": options.quick,
        "seconds": round(time.monotonic() - started),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    figures.write(options.output, about)
    figures.show(Console(width=140))
    return 0


if __name__ == "__main__":
    sys.exit(main())

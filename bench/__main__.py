"""`python -m bench`: run everything, print the table, write `build/bench.json`."""

import argparse
import asyncio
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from bench.figures import Figures
from bench.plan import QUICK, WHOLE
from bench.ports import FIRST_PORT, Ports
from bench.program import ROOT
from bench.run import PARTS, run

_STOPPED = 130


def main() -> int:
    """Parse the command line and run; 1 when something could not be measured. A missed target
    is no failure: the table says so."""
    options = _parser().parse_args()
    started = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        figures = asyncio.run(_until_signalled(options, directory))
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("stopped; no result is written", file=sys.stderr)
        return _STOPPED
    finally:
        if options.keep:
            print(f"the servers' files are in {directory}", file=sys.stderr)
        else:
            _remove(directory)
    _write(options, figures, time.monotonic() - started)
    return 1 if figures.faults else 0


def _write(options: argparse.Namespace, figures: Figures, seconds: float) -> None:
    about: dict[str, object] = {
        "quick": options.quick,
        "parts": options.only or list(PARTS),
        "seconds": round(seconds),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_average_at_end": [round(load, 2) for load in os.getloadavg()],
    }
    figures.write(options.output, about)
    figures.show(Console(width=None if sys.stdout.isatty() else 150))


def _remove(directory: Path) -> None:
    """Remove a folder in which killed processes may still be writing for a moment."""
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run of some minutes")
    parser.add_argument("--only", choices=tuple(PARTS), help="one part of the run")
    parser.add_argument("--keep", action="store_true", help="leave the servers' files for a look")
    parser.add_argument("--first-port", type=int, default=FIRST_PORT, metavar="N")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench.json")
    return parser


async def _until_signalled(options: argparse.Namespace, directory: Path) -> Figures:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    parts = [PARTS[options.only]] if options.only else list(PARTS.values())
    plan = QUICK if options.quick else WHOLE
    return await run(parts, plan, directory, Ports(options.first_port))


if __name__ == "__main__":
    sys.exit(main())

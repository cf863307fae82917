"""Debian's Prometheus, as operators have it, scraping a bridge."""

import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import free_port


def prometheus_path() -> str | None:
    """The program, if Debian's is installed."""
    return shutil.which("prometheus", path="/usr/bin")


def promtool_path() -> str | None:
    """The one that checks rules and metrics, likewise."""
    return shutil.which("promtool", path="/usr/bin")


@contextmanager
def prometheus_with(config: Path) -> Generator[str]:
    """One with a configuration file, which keeps its data beside it; its URL."""
    program, port = prometheus_path(), free_port()
    assert program is not None
    address = f"127.0.0.1:{port}"
    with (config.parent / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={config.parent / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()

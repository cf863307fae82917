"""What tests that were killed have left in memory."""

import os
import subprocess
import sys
from pathlib import Path

from tests.unit.conftest import sweep


def test_only_what_nobody_uses_any_more_is_swept(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, used, others = (
        tmp_path / name
        for name in (f"letta-matrix-unit-{gone.pid}-a", f"letta-matrix-unit-{os.getpid()}-b", "c-1")
    )
    for folder in (left, used, others):
        (folder / "within").mkdir(parents=True)
    sweep(tmp_path)
    assert [folder.exists() for folder in (left, used, others)] == [False, True, True]

"""Folders for copies of scans: one per process, and none outlives its process for long."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from normbank.storage.spool import open_spool, sweep_spool

HOLD = """
import sys
from pathlib import Path
from normbank.storage.spool import open_spool
with open_spool(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def folders(parent: Path) -> set[Path]:
    return {path for path in parent.iterdir() if path.is_dir()}


def test_a_living_processs_folder_stays_and_a_killed_ones_goes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        with open_spool(tmp_path) as ours:
            (ours / "request-x").mkdir()
            assert folders(tmp_path) == {ours, theirs}
        assert folders(tmp_path) == {theirs}
        other.kill()
        other.wait()
    assert theirs.exists()
    with open_spool(tmp_path) as ours:
        assert folders(tmp_path) == {ours}


def test_what_was_left_behind_goes_without_a_new_process_and_the_living_stay(
    tmp_path: Path,
) -> None:
    sweep_spool(tmp_path / "none")
    with open_spool(tmp_path) as ours:
        (tmp_path / "api-dead").mkdir()
        sweep_spool(tmp_path)
        assert folders(tmp_path) == {ours}

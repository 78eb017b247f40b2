"""One `normbank up` per data folder."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from cli.local.errors import LaunchError
from cli.local.ownership import announced, running_service, sole_owner
from cli.local.processes import ROOT

SECOND = """
import sys
from pathlib import Path
from cli.local.ownership import sole_owner
with sole_owner(Path(sys.argv[1])):
    print("mine")
"""


def second_owner(folder):
    command = [sys.executable, "-c", SECOND, str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_second_owner_is_told_who_the_first_is(tmp_path):
    refused = pytest.raises(LaunchError, match=rf"another `normbank up` \(process {os.getpid()}\)")
    with sole_owner(tmp_path), refused, sole_owner(tmp_path):
        pass


def test_another_process_is_refused_until_the_owner_has_left(tmp_path):
    with sole_owner(tmp_path):
        assert "mine" not in second_owner(tmp_path).stdout
    assert "mine" in second_owner(tmp_path).stdout


def test_a_running_service_can_be_found_and_a_stopped_one_cannot(tmp_path):
    addresses = {"url": "http://127.0.0.1:1", "database_url": "postgresql://secret"}
    assert running_service(tmp_path) is None
    with sole_owner(tmp_path), announced(tmp_path, addresses):
        assert running_service(tmp_path) == addresses
        assert stat.S_IMODE((tmp_path / "service.json").stat().st_mode) == 0o600
    assert running_service(tmp_path) is None
    assert not (tmp_path / "service.json").exists()


def test_the_folder_and_its_logs_are_closed_to_other_accounts(tmp_path):
    folder = tmp_path / "data"
    (folder / "logs").mkdir(parents=True)
    folder.chmod(0o755)
    older = (folder / "postgres.log", folder / "logs" / "api.log", folder / "logs" / "api.log.1")
    for log in older:
        log.touch(0o644)
    with sole_owner(folder):
        (folder / "valkey.log").touch()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for log in (*older, folder / "valkey.log"):
            assert stat.S_IMODE(log.stat().st_mode) == 0o600, log
    (tmp_path / "later").touch()
    assert stat.S_IMODE((tmp_path / "later").stat().st_mode) == 0o644

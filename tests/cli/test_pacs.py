"""`normbank pacs …` and `normbank up` with a PACS file, as an operator runs them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from click.testing import Result
from sqlalchemy import text
from typer.testing import CliRunner

from cli.local.launcher import service_processes
from cli.local.processes import child_environment, python
from cli.main import app
from normbank.config import Settings, get_settings
from normbank.storage.database import make_engine
from tests.support.mr_series import SLICES, write_series
from tests.support.orthanc import PASSWORD, USER, Orthanc, needs_orthanc, running_orthanc
from tests.support.pacs_service import write_pacs_file
from tests.support.up import running

Normbank = Callable[..., Result]


@pytest.fixture(scope="module")
def orthanc() -> Iterator[Orthanc]:
    with running_orthanc() as server:
        yield server


@pytest.fixture
def normbank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Normbank]:
    """Run a command with `pacs.toml` of the test's folder."""
    monkeypatch.setenv("NORMBANK_PACS_FILE", str(tmp_path / "pacs.toml"))
    monkeypatch.setenv("NORMBANK_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TEST_ORTHANC_USER", USER)
    monkeypatch.setenv("TEST_ORTHANC_PASSWORD", PASSWORD)

    def run(*arguments: str) -> Result:
        get_settings.cache_clear()
        return CliRunner().invoke(app, arguments)

    yield run
    get_settings.cache_clear()


def marks(result: Result) -> list[str]:
    """The first word of every line."""
    return [line.split()[0] for line in result.stdout.splitlines()]


@needs_orthanc
def test_check_walks_the_whole_way_and_stores_nothing_unasked(
    normbank: Normbank, orthanc: Orthanc, tmp_path: Path
) -> None:
    write_pacs_file(tmp_path / "pacs.toml", orthanc)
    empty = normbank("pacs", "check", "main")
    assert (empty.exit_code, marks(empty)) == (0, ["ok", "ok", "ok", "--", "--", "ok", "--"])
    orthanc.send(write_series(tmp_path / "s"))
    checked = normbank("pacs", "check", "main")
    assert (checked.exit_code, marks(checked)) == (0, [*["ok"] * 6, "--"])
    assert f"a series of {SLICES} instances came whole" in checked.stdout
    assert "1 of 1 MR series would be segmented" in checked.stdout
    assert "follows it by Orthanc's list of changes" in checked.stdout
    assert PASSWORD not in checked.output
    assert len(orthanc.get("/studies").json()) == 1
    stored = normbank("pacs", "check", "main", "--store")
    assert (stored.exit_code, marks(stored)) == (0, ["ok"] * 7)
    assert len(orthanc.get("/studies").json()) == 2


@needs_orthanc
def test_check_ends_at_the_step_that_fails_and_says_what_to_do(
    normbank: Normbank, orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pacs_file(tmp_path / "pacs.toml", orthanc)
    monkeypatch.setenv("TEST_ORTHANC_PASSWORD", "another")
    refused = normbank("pacs", "check", "main")
    assert (refused.exit_code, marks(refused)) == (1, ["ok", "ok", "FAILED"])
    assert "401 Unauthorized: look at username_env and password_env" in refused.stdout


@needs_orthanc
def test_watch_follows_until_it_is_interrupted(
    orthanc: Orthanc, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    path = write_pacs_file(tmp_path / "pacs.toml", orthanc)
    orthanc.send(write_series(tmp_path / "s"))
    environment = child_environment(
        {
            "NORMBANK_DATABASE_URL": database_url,
            "NORMBANK_REDIS_URL": redis_url,
            "NORMBANK_DATA_DIR": str(tmp_path / "data"),
            "NORMBANK_PACS_FILE": str(path),
            "TEST_ORTHANC_USER": USER,
            "TEST_ORTHANC_PASSWORD": PASSWORD,
        }
    )
    command = python("cli", "pacs", "watch", "main")
    engine = make_engine(database_url)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as watching:
        give_up_at = time.monotonic() + 60
        while not _announced(redis_url):
            assert time.monotonic() < give_up_at, "no job was announced"
            time.sleep(0.1)
        watching.send_signal(signal.SIGINT)
        said = watching.communicate(timeout=30)[1]
    assert watching.returncode == 0
    assert said.startswith("following 'main' at http://")
    with engine.connect() as connection:
        jobs = connection.execute(text("SELECT kind, payload ->> 'domain' FROM job")).all()
    engine.dispose()
    assert [tuple(job) for job in jobs] == [("pacs", "auto")] * len(jobs) != []


@needs_orthanc
def test_the_listener_of_up_is_started_again_and_ends_with_it(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    path = write_pacs_file(tmp_path / "pacs.toml", orthanc, settle_s=600.0)
    environment = {"TEST_ORTHANC_USER": USER, "TEST_ORTHANC_PASSWORD": PASSWORD}
    with running(tmp_path / "data", NORMBANK_PACS_FILE=str(path), **environment) as up:
        first = up.server("listener")
        assert first is not None
        first.kill()
        give_up_at = time.monotonic() + 30
        while (now := up.server("listener")) is None or now.pid == first.pid:
            assert time.monotonic() < give_up_at, "no new listener"
            time.sleep(0.1)
        assert "the listener ended (signal 9)" in up.errors.read_text()
        up.stop(signal.SIGTERM)
        assert up.process.returncode == 0
        assert not psutil.pid_exists(now.pid)


def _announced(redis_url: str) -> int:
    with redis.Redis.from_url(redis_url) as broker:
        return int(broker.llen("normbank:pacs"))


def test_check_says_that_nobody_listens(normbank: Normbank, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = f'[[pacs]]\nname = "main"\ndicomweb_url = "http://127.0.0.1:{port}/dicom-web"\n'
    (tmp_path / "pacs.toml").write_text(text)
    result = normbank("pacs", "check", "main")
    assert (result.exit_code, marks(result)) == (1, ["ok", "FAILED"])
    assert f"takes no connection at port {port}: does the PACS run" in result.stdout


def test_a_pacs_that_the_file_does_not_name_is_said(normbank: Normbank, tmp_path: Path) -> None:
    (tmp_path / "pacs.toml").write_text('[[pacs]]\nname = "a"\ndicomweb_url = "http://h/rs"\n')
    result = normbank("pacs", "check", "main")
    assert result.exit_code == 1
    assert "names 'a'. (unknown_pacs)" in result.stderr


def test_up_stops_with_one_line_before_anything_starts(normbank: Normbank, tmp_path: Path) -> None:
    (tmp_path / "pacs.toml").write_text('[[pacs]]\nname = "a"\nurl = "http://h/rs"\n')
    result = normbank("up", "--port", "0")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("normbank: PACS file pacs.toml (NORMBANK_PACS_FILE): pacs 1 'a', ")
    assert not (tmp_path / "data").exists()


def test_up_runs_the_listener_where_a_pacs_is_to_be_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pacs.toml"
    path.write_text('[[pacs]]\nname = "a"\ndicomweb_url = "http://h/rs"\n')
    settings = Settings(data_dir=tmp_path, pacs_file=path)
    assert [child.name for child in service_processes(settings, print)] == ["api", "worker"]
    path.write_text(path.read_text() + "watch = true\n")
    children = service_processes(settings, print)
    assert [child.name for child in children] == ["api", "worker", "listener"]
    for child in children:
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", dict(child.environment))
            assert Settings().pacs_file == path

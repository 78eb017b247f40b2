"""`normbank up`, as a person starts and stops it: real databases, API and worker."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import time
from contextlib import suppress

import httpx
import psutil
import pytest
from sqlalchemy import text

from cli.local.builtin_domains import NAMES
from cli.local.launcher import service_processes
from cli.local.postgres import EmbeddedPostgres
from cli.local.processes import child_environment, python
from normbank.config import Settings
from normbank.storage.database import make_engine
from tests.support.up import NEITHER, Up, command_of, running

STOP_WITHIN_S = 15.0


def gone(processes: list[psutil.Process], within_s: float = 5.0) -> bool:
    """Whether all of them end in time; zombies nobody waits for count as ended."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(_lives(process) for process in processes):
            return True
        time.sleep(0.05)
    return False


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("up") / "data"


@pytest.fixture(scope="module")
def service(data):
    with running(data) as up:
        yield up


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        python("cli", *arguments),
        env=child_environment({**NEITHER, **environment}),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_ready_service_answers_with_the_key_it_wrote(service):
    assert httpx.get(f"{service.url}/readyz", trust_env=False).status_code == 200
    assert stat.S_IMODE((service.data / "admin.key").stat().st_mode) == 0o600
    domains = {one["id"] for one in service.get("/domains").json()["items"]}
    assert domains == set(NAMES)


def test_it_works_as_a_role_that_may_little_and_its_files_are_its_own(service):
    checks = httpx.get(f"{service.url}/readyz", trust_env=False).json()["checks"]
    assert next(check["detail"] for check in checks if check["name"] == "database") == ""
    for process in service.family():
        with suppress(psutil.Error):
            assert process.environ().get("NORMBANK_OWNER_URL", "") == "", command_of(process)
    assert service.data.stat().st_mode & 0o067 == 0  # root lets PostgreSQL's account pass through
    logs = [*service.data.glob("*.log"), *service.data.glob("logs/*.log")]
    assert len(logs) >= 4
    assert {stat.S_IMODE(log.stat().st_mode) for log in logs} == {0o600}


def test_the_commands_find_the_running_service(service):
    listed = run("domains", "list", "--url", service.url, "--data", str(service.data))
    assert "sim-t1w-3t" in listed.stdout
    made = run("keys", "create", "a monitor", "--role", "monitor", "--data", str(service.data))
    headers = {"X-API-Key": made.stdout.strip()}
    answer = httpx.get(f"{service.url}/domains", headers=headers, trust_env=False)
    assert answer.status_code == 200


def test_a_second_up_on_the_same_folder_is_refused(service):
    second = run("up", "--data", str(service.data), "--port", "0")
    assert second.returncode == 1
    assert f"(process {service.process.pid}) is using" in second.stderr


def test_a_killed_worker_is_back_within_two_seconds(service):
    first = service.worker()
    first.kill()
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        worker = service.worker()
        if worker is not None and worker.pid != first.pid:
            break
        time.sleep(0.05)
    else:
        pytest.fail("no new worker")
    assert "the worker ended (signal 9)" in service.errors.read_text()


def test_ctrl_c_takes_everything_down_and_ready_was_the_only_line(service):
    family = service.family()
    assert len(family) >= 5
    assert service.stop(signal.SIGINT) < STOP_WITHIN_S
    assert service.process.returncode == 0
    assert gone(family)
    assert service.rest == ""
    assert not (service.data / "service.json").exists()


def test_an_expired_key_is_renewed_and_kill_minus_nine_leaves_nothing_behind(service, data):
    if service.process.poll() is None:
        service.stop(signal.SIGTERM)
    before = (data / "admin.key").read_text()
    in_database(data, "UPDATE api_key SET expires_at = now() - interval '1 day'")
    again = Up(data)
    assert again.key != before.strip()
    assert again.get("/domains").status_code == 200
    family = again.family()
    again.stop(signal.SIGKILL)
    assert gone(family), [command_of(process) for process in family if _lives(process)]
    assert in_database(data, "SELECT 1 FROM domain").rowcount == len(NAMES)


def in_database(data, statement):
    """Run a statement in the database of a service that is down."""
    with EmbeddedPostgres(data / "postgres") as postgres:
        engine = make_engine(postgres.url)
        try:
            with engine.begin() as connection:
                return connection.execute(text(statement))
        finally:
            engine.dispose()


def test_api_and_worker_are_told_the_same_older_backbones(tmp_path, monkeypatch):
    named = (tmp_path / "v0", tmp_path / "with space")
    for dirs in (named, (), None):
        settings = Settings(data_dir=tmp_path, older_backbone_dirs=dirs)
        for child in service_processes(settings, print):
            with monkeypatch.context() as patch:
                patch.setattr(os, "environ", dict(child.environment))
                assert Settings().older_backbone_dirs == dirs


def test_a_busy_port_is_said_before_anything_starts(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run("up", "--data", str(tmp_path / "data"), "--port", str(port))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert os.listdir(tmp_path / "data") == ["up.lock"]

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

from cli.processes import child_environment, log_tail, python

STOP_WITHIN_S = 15.0
NEITHER = {"NORMBANK_DATABASE_URL": "", "NORMBANK_REDIS_URL": "", "NORMBANK_BLOB_URL": ""}


class Up:
    """One `normbank up` in a process of its own."""

    def __init__(self, data, *arguments: str) -> None:
        self.data = data
        self.errors = data.with_suffix(".err")
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                python("cli", "up", "--data", str(data), "--port", "0", *arguments),
                env=child_environment(NEITHER),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.ready = self.process.stdout.readline()
        assert self.ready.startswith("ready "), log_tail(self.errors)
        self.url = self.ready.split()[1]

    def family(self) -> list[psutil.Process]:
        """Every process it has started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def worker(self) -> psutil.Process | None:
        """The worker's main process."""
        return next((one for one in self.family() if "celery" in _command(one)), None)

    def get(self, path: str) -> httpx.Response:
        key = (self.data / "admin.key").read_text().strip()
        return httpx.get(self.url + path, headers={"X-API-Key": key}, trust_env=False)

    def stop(self, number: int) -> float:
        """Signal it; the seconds until it had gone."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.rest, _ = self.process.communicate(timeout=60)
        return time.monotonic() - started


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


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
    up = Up(data)
    yield up
    if up.process.poll() is None:
        up.stop(signal.SIGTERM)


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
    assert domains == {"sim-t1w-1p5t", "sim-t1w-3t", "sim-t2w-3t"}


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


def test_kill_minus_nine_leaves_nothing_behind_and_the_data_start_again(service, data):
    if service.process.poll() is None:
        service.stop(signal.SIGTERM)
    key = (data / "admin.key").read_text()
    again = Up(data)
    family = again.family()
    again.stop(signal.SIGKILL)
    assert gone(family), [_command(process) for process in family if _lives(process)]
    assert (data / "admin.key").read_text() == key


def test_a_busy_port_is_said_before_anything_starts(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run("up", "--data", str(tmp_path / "data"), "--port", str(port))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert os.listdir(tmp_path / "data") == ["up.lock"]

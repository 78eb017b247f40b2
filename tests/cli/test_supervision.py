"""`normbank up` under faults: each of its servers comes back, killed or hung."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.up import Up, command_of, running

BACK_WITHIN_S = 120.0
NOTICED_WITHIN_S = 45.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("faults") / "data"
    with running(folder, NORMBANK_LEASE_S="10") as up:
        yield up


def until(happens: Callable[[], Any], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not happens():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def ready(service: Up) -> bool:
    with suppress(httpx.HTTPError):
        answer = httpx.get(f"{service.url}/readyz", timeout=5, trust_env=False)
        return answer.status_code == 200
    return False


def works(service: Up) -> bool:
    """Whether requests are answered, and a worker lives."""
    if not ready(service):
        return False
    metrics = service.get("/metrics").text
    return "normbank_workers_alive 1.0" in metrics and service.get("/domains").is_success


def other(service: Up, name: str, first: psutil.Process) -> bool:
    """Whether another process has taken the place of the first one."""
    process = service.server(name)
    return process is not None and process.pid != first.pid and not first.is_running()


@pytest.mark.parametrize("name", ["postgres", "valkey"])  # all four: bench/chaos
def test_a_killed_server_is_back_at_the_same_address(service: Up, name: str) -> None:
    until(lambda: works(service), BACK_WITHIN_S)
    addresses = (service.data / "service.json").read_text()
    first = service.server(name)
    assert first is not None
    first.kill()
    until(lambda: other(service, name, first), BACK_WITHIN_S)
    until(lambda: works(service), BACK_WITHIN_S)
    assert service.process.poll() is None
    assert (service.data / "service.json").read_text() == addresses
    assert "ended (signal 9)" in service.errors.read_text()


@pytest.mark.parametrize("name", ["postgres", "api", "child"])  # all: bench/chaos
def test_a_server_that_hangs_is_noticed_and_replaced(service: Up, name: str) -> None:
    until(lambda: works(service), BACK_WITHIN_S)
    first = service.server(name)
    assert first is not None
    first.send_signal(signal.SIGSTOP)
    until(lambda: other(service, name, first), NOTICED_WITHIN_S)
    until(lambda: works(service), BACK_WITHIN_S)
    assert "does not answer after" in service.errors.read_text()


def test_none_of_its_processes_is_left_over(service: Up) -> None:
    until(lambda: works(service), BACK_WITHIN_S)
    states = {command_of(process): process.status() for process in service.family()}
    assert psutil.STATUS_ZOMBIE not in states.values(), states
    assert psutil.STATUS_STOPPED not in states.values(), states
    children = psutil.Process(service.process.pid).children()
    assert len(children) == 5, "four servers and the reaper"


def test_readiness_tells_of_workers_without_needing_one(service: Up) -> None:
    until(lambda: works(service), BACK_WITHIN_S)
    answer = service.get("/readyz").json()
    assert answer["details"]["workers"].startswith("1 alive, seen ")
    assert "workers" not in {check["name"] for check in answer["checks"]}


def test_a_server_that_cannot_be_mended_ends_up_with_an_error(tmp_path: Path) -> None:
    with running(tmp_path / "data") as up:
        for _ in range(5):
            until(lambda: up.server("valkey") or up.process.poll() is not None, 30)
            if (valkey := up.server("valkey")) is None:
                break
            valkey.kill()
            until(lambda pid=valkey.pid: not psutil.pid_exists(pid), 10)
        up.process.communicate(timeout=60)
        assert up.process.returncode == 1
        assert "the Valkey keeps ending" in up.errors.read_text()

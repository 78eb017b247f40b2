"""Children are kept running, and none outlives its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from cli.local.errors import LaunchError
from cli.local.heartbeat import Heartbeat
from cli.local.processes import ROOT, Child, child_environment, log_tail, python
from cli.local.reaper import Reaper, reap
from cli.local.restarts import Restarts
from cli.local.supervisor import Supervisor

SLEEPER = (sys.executable, "-c", "import time; print('at work', flush=True); time.sleep(600)")
FAMILY = (
    sys.executable,
    "-c",
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)",
)


def until(happens, within_s: float = 10.0):
    """Wait for something and return it."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if result := happens():
            return result
        time.sleep(0.02)
    pytest.fail("it did not happen in time")


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def number_in(log: Path) -> int:
    text = log.read_text() if log.exists() else ""
    return int(text.split()[-1]) if text.endswith("\n") else 0


@pytest.fixture
def reaper_lines() -> list[str]:
    return []


@pytest.fixture
def make_child(tmp_path, reaper_lines):
    made = []

    def make(command) -> Child:
        log = tmp_path / f"{len(made)}.log"
        child = Child("thing", command, os.environ.copy(), tmp_path, log, reaper_lines.append)
        made.append(child)
        return child

    yield make
    for child in made:
        child.wait_or_kill(time.monotonic())


def pid_of(reaper_lines: list[str]) -> int:
    return int(reaper_lines[-1].split()[1])


def test_a_killed_child_runs_again_within_two_seconds(make_child, reaper_lines):
    child = make_child(SLEEPER)
    child.check()
    first = pid_of(reaper_lines)
    killed_at = time.monotonic()
    os.kill(first, signal.SIGKILL)
    message = until(child.check)
    until(lambda: child.check() or reaper_lines[-1].startswith("group"))
    assert time.monotonic() - killed_at < 2.0
    assert "signal 9" in message
    assert pid_of(reaper_lines) != first


def test_what_a_dead_child_left_behind_ends_with_it(make_child, reaper_lines):
    child = make_child(FAMILY)
    child.check()
    grandchild = until(lambda: number_in(child.log))
    assert alive(grandchild)
    os.kill(pid_of(reaper_lines), signal.SIGKILL)
    until(child.check)
    assert until(lambda: not alive(grandchild))


def test_a_child_that_ignores_sigterm_is_killed_with_its_family(make_child, reaper_lines):
    stubborn = (
        sys.executable,
        "-c",
        "import signal; signal.signal(15, signal.SIG_IGN)\n" + FAMILY[2],
    )
    child = make_child(stubborn)
    child.check()
    grandchild, pid = until(lambda: number_in(child.log)), pid_of(reaper_lines)
    child.terminate()
    child.wait_or_kill(time.monotonic() + 0.2)
    until(lambda: not alive(grandchild))
    assert not alive(pid)
    assert reaper_lines[-1] == f"ended {pid}"


def test_a_child_that_keeps_ending_waits_longer_each_time(make_child):
    child = make_child((sys.executable, "-c", "raise SystemExit('no luck')"))
    started = time.monotonic()
    until(lambda: child.check() and child.quick_deaths == 3)
    assert time.monotonic() - started >= 0.2 + 0.4
    assert "no luck" in log_tail(child.log)


def test_the_supervisor_gives_up_early_and_shows_the_log(make_child):
    child = make_child((sys.executable, "-c", "raise SystemExit('cannot read the weights')"))
    messages: list[str] = []
    supervisor = Supervisor(
        [child],
        "http://127.0.0.1:9",
        threading.Event(),
        on_ready=lambda: pytest.fail("it never served"),
        on_restart=messages.append,
    )
    with pytest.raises(LaunchError, match="cannot read the weights"):
        supervisor.run()
    assert messages, "it is started again before it is given up"


OWNER = """
import os, sys, time
from pathlib import Path
from cli.local.processes import Child, child_environment
from cli.local.reaper import Reaper
reaper = Reaper(child_environment({}))
folder = Path(sys.argv[1])
child = Child("thing", sys.argv[2:], os.environ.copy(), folder, folder / "log", reaper.send)
child.check()
time.sleep(600)
"""


def test_nothing_survives_a_killed_owner(tmp_path):
    command = [sys.executable, "-c", OWNER, str(tmp_path), *FAMILY]
    owner = subprocess.Popen(command, env=child_environment({}), cwd=ROOT)
    grandchild = until(lambda: number_in(tmp_path / "log"))
    children = psutil.Process(owner.pid).children(recursive=True)
    assert len(children) == 3, "the reaper, the child and its child"
    owner.kill()
    owner.wait()
    for process in children:
        until(lambda pid=process.pid: not alive(pid))
    assert not alive(grandchild)


def test_a_reaper_that_is_reaper_lines_all_is_done_ends_nothing():
    bystander = subprocess.Popen(SLEEPER, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        reaper = Reaper(child_environment({}))
        reaper.send(f"group {bystander.pid}")
        reaper.close()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_module_of_ours_starts_from_any_folder(tmp_path):
    (tmp_path / "cli.py").write_text("raise SystemExit('the wrong one')")
    done = subprocess.run(
        python("cli.local.reaper"),
        cwd=tmp_path,
        env=child_environment({}),
        input=b"done\n",
        check=False,
    )
    assert done.returncode == 0


def test_a_child_that_hangs_is_replaced_and_one_that_starts_is_waited_for(make_child, reaper_lines):
    answering = threading.Event()
    child = make_child(SLEEPER)
    child.heartbeat = Heartbeat(lambda _pid: answering.is_set(), every_s=0.1)
    child.heartbeat.start()
    child.check()
    first = pid_of(reaper_lines)
    time.sleep(1.0)
    assert child.check() is None, "it has not answered yet, so it starts"
    answering.set()
    time.sleep(0.5)
    answering.clear()
    assert "does not answer" in until(child.check)
    assert not alive(first)
    child.heartbeat.stop()


def test_a_new_process_is_asked_at_once(make_child, reaper_lines):
    asked = []
    child = make_child(SLEEPER)
    child.heartbeat = Heartbeat(lambda pid: asked.append(pid) is None, every_s=60.0)
    child.heartbeat.start()
    child.check()
    child.check()
    until(lambda: asked == [pid_of(reaper_lines)])
    os.kill(pid_of(reaper_lines), signal.SIGKILL)
    until(child.check)
    until(lambda: child.check() or reaper_lines[-1].startswith("group"))
    child.check()
    until(lambda: asked[-1] == pid_of(reaper_lines))
    child.heartbeat.stop()
    assert len(asked) == 2, "once each, though the next question is a minute away"


def test_one_missed_check_ends_nobody(make_child):
    answers = iter([True, False, False, True] * 1000)
    child = make_child(SLEEPER)
    child.heartbeat = Heartbeat(lambda _pid: next(answers), every_s=0.1)
    child.heartbeat.start()
    started = time.monotonic()
    while time.monotonic() < started + 2.0:
        assert child.check() is None
        time.sleep(0.02)
    child.heartbeat.stop()


def test_five_restarts_within_a_minute_are_too_many_and_long_lives_do_not_count_in_a_row():
    restarts = Restarts()
    for _ in range(4):
        restarts.count(lived_s=3600.0)
    assert (restarts.too_many, restarts.in_a_row) == (False, 1)
    restarts.count(lived_s=3600.0)
    assert restarts.too_many


def test_the_reaper_spares_a_process_that_has_ended_meanwhile():
    bystander = subprocess.Popen(SLEEPER, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        reap([f"server {bystander.pid} {signal.SIGKILL:d}", f"ended {bystander.pid}"])
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()

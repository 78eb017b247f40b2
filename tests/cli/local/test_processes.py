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
import typer

from cli.local.processes import ROOT, Child, Reaper, child_environment, log_tail, python
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
        if found := happens():
            return found
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
def told() -> list[str]:
    return []


@pytest.fixture
def make_child(tmp_path, told):
    made = []

    def make(command) -> Child:
        log = tmp_path / f"{len(made)}.log"
        child = Child("thing", command, os.environ.copy(), tmp_path, log, told.append)
        made.append(child)
        return child

    yield make
    for child in made:
        child.end(time.monotonic())


def pid_of(told: list[str]) -> int:
    return int(told[-1].split()[1])


def test_a_killed_child_runs_again_within_two_seconds(make_child, told):
    child = make_child(SLEEPER)
    child.tend()
    first = pid_of(told)
    killed_at = time.monotonic()
    os.kill(first, signal.SIGKILL)
    said = until(child.tend)
    until(lambda: child.tend() or told[-1].startswith("group"))
    assert time.monotonic() - killed_at < 2.0
    assert "signal 9" in said
    assert pid_of(told) != first


def test_what_a_dead_child_left_behind_ends_with_it(make_child, told):
    child = make_child(FAMILY)
    child.tend()
    grandchild = until(lambda: number_in(child.log))
    assert alive(grandchild)
    os.kill(pid_of(told), signal.SIGKILL)
    until(child.tend)
    assert until(lambda: not alive(grandchild))


def test_a_child_that_ignores_sigterm_is_killed_with_its_family(make_child, told):
    stubborn = (
        sys.executable,
        "-c",
        "import signal; signal.signal(15, signal.SIG_IGN)\n" + FAMILY[2],
    )
    child = make_child(stubborn)
    child.tend()
    grandchild, pid = until(lambda: number_in(child.log)), pid_of(told)
    child.ask_to_end()
    child.end(time.monotonic() + 0.2)
    until(lambda: not alive(grandchild))
    assert not alive(pid)
    assert told[-1] == f"ended {pid}"


def test_a_child_that_keeps_ending_waits_longer_each_time(make_child):
    child = make_child((sys.executable, "-c", "raise SystemExit('no luck')"))
    started = time.monotonic()
    until(lambda: child.tend() and child.quick_deaths == 3)
    assert time.monotonic() - started >= 0.2 + 0.4
    assert "no luck" in log_tail(child.log)


def test_the_supervisor_gives_up_early_and_shows_the_log(make_child, capsys):
    child = make_child((sys.executable, "-c", "raise SystemExit('cannot read the weights')"))
    with pytest.raises(typer.Exit) as ended:
        Supervisor([child], "http://127.0.0.1:9", threading.Event()).run()
    assert ended.value.exit_code == 1
    said = capsys.readouterr()
    assert "cannot read the weights" in said.err
    assert said.out == ""


OWNER = """
import os, sys, time
from pathlib import Path
from cli.local.processes import Child, Reaper, child_environment
reaper = Reaper(child_environment({}))
folder = Path(sys.argv[1])
child = Child("thing", sys.argv[2:], os.environ.copy(), folder, folder / "log", reaper.tell)
child.tend()
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


def test_a_reaper_that_is_told_all_is_done_ends_nothing():
    bystander = subprocess.Popen(SLEEPER, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        reaper = Reaper(child_environment({}))
        reaper.tell(f"group {bystander.pid}")
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

"""Child processes of `normbank up`: started, watched, started again, ended."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 30.0
SOUND_LIFE_S = 20.0
LOG_BYTES = 16 * 1024 * 1024
PR_SET_PDEATHSIG = 1


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Copy this process's environment; our packages are importable from any folder."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        **extra,
    }


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """The command of a Python module; `-P` keeps the current folder out of its path."""
    return (sys.executable, "-P", "-m", module, *arguments)


def log_tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, indented."""
    with suppress(OSError):
        text = log.read_text(errors="replace")
        return "\n".join(f"  {line}" for line in text.splitlines()[-lines:])
    return ""


def end_group(pid: int, number: int) -> None:
    """Signal a process group, which may have ended already."""
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


@dataclass
class Child:
    """A process that runs for as long as `up` does, restarted when it ends.

    Attributes
    ----------
    send_to_reaper : takes the lines of `cli.local.reaper`'s protocol
    quick_deaths : ends in a row, each after less than `SOUND_LIFE_S`
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    log: Path
    send_to_reaper: Callable[[str], None]
    quick_deaths: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _started_at: float = 0.0
    _start_again_at: float = 0.0

    def check(self) -> str | None:
        """Start it unless it runs; if it has ended, return a message that says how."""
        status = self._process.poll() if self._process else None
        if status is not None:
            return self._clean_up(status)
        if self._process is None and time.monotonic() >= self._start_again_at:
            self._start()
        return None

    def terminate(self) -> None:
        """Send SIGTERM to the process group."""
        if self._process:
            end_group(self._process.pid, signal.SIGTERM)

    def wait_or_kill(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic), then kill what is left of the group."""
        if self._process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(deadline - time.monotonic(), 0.0))
        end_group(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.send_to_reaper(f"ended {self._process.pid}")
        self._process = None

    def _start(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=dict(self.environment),
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGKILL),
            )
        self._started_at = time.monotonic()
        self.send_to_reaper(f"group {self._process.pid}")

    def _clean_up(self, status: int) -> str:
        """Kill the rest of its group and schedule the restart; a message for the operator."""
        assert self._process is not None
        end_group(self._process.pid, signal.SIGKILL)
        self.send_to_reaper(f"ended {self._process.pid}")
        self._process = None
        lived_s = time.monotonic() - self._started_at
        self.quick_deaths = self.quick_deaths + 1 if lived_s < SOUND_LIFE_S else 1
        pause_s = min(FIRST_PAUSE_S * 2 ** (self.quick_deaths - 1), LONGEST_PAUSE_S)
        self._start_again_at = time.monotonic() + pause_s
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return f"the {self.name} ended ({how}) after {lived_s:.0f} s; starting it again"


def end_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """A `preexec_fn` that has the kernel signal a child when its parent dies (Linux only)."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded here: between fork and exec there is no loading

    def bind() -> None:
        libc.prctl(PR_SET_PDEATHSIG, number)

    return bind

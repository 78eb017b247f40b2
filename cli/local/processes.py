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
from pathlib import Path

from cli.local.heartbeat import Heartbeat
from cli.local.kept import Kept

ROOT = Path(__file__).resolve().parents[2]
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


class Child(Kept):
    """A process of ours, with a group and a log of its own.

    Parameters
    ----------
    send_to_reaper : takes the lines of `cli.local.reaper`'s protocol
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        send_to_reaper: Callable[[str], None],
        heartbeat: Heartbeat | None = None,
    ) -> None:
        super().__init__(name, log, heartbeat)
        self.command = command
        self.environment = environment
        self.folder = folder
        self.send_to_reaper = send_to_reaper
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def terminate(self) -> None:
        """Send SIGTERM to the process group, and wake what was stopped to hear it."""
        if self._process:
            end_group(self._process.pid, signal.SIGTERM)
            end_group(self._process.pid, signal.SIGCONT)

    def wait_or_kill(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic), then kill what is left of the group."""
        if self._process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(deadline - time.monotonic(), 0.0))
        self._kill()

    def _status(self) -> int | None:
        return self._process.poll() if self._process else None

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
        self.send_to_reaper(f"group {self._process.pid}")

    def _kill(self) -> None:
        assert self._process is not None
        end_group(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.send_to_reaper(f"ended {self._process.pid}")
        self._process = None


def end_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """A `preexec_fn` that has the kernel signal a child when its parent dies (Linux only)."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded here: between fork and exec there is no loading

    def bind() -> None:
        libc.prctl(PR_SET_PDEATHSIG, number)

    return bind

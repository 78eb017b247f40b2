"""Base of the embedded servers: started in a folder, stopped by process id.

Each server belongs to the process that holds the folder's lock. A server that
outlived its owner (`kill -9`) is stopped by its pid before a new one starts.
"""

from __future__ import annotations

import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from filelock import FileLock, Timeout

from cli.local.errors import EmbeddedServerError
from normbank.errors import ConflictError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


class EmbeddedServer(ABC):
    """Context manager of one server: the folder's lock, start, stop.

    Parameters
    ----------
    data_dir : the server's own folder; made when it is missing
    """

    program = ""
    _stop_signal = signal.SIGTERM

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()

    @property
    def pid(self) -> int | None:
        """The server's process id; None when it does not run."""
        return self._process.pid if self._process else None

    @property
    def log(self) -> Path:
        """What the server writes."""
        return self.data_dir.parent / f"{self.data_dir.name}.log"

    def status(self) -> int | None:
        """How the server has ended; None while it runs or was not started."""
        return self._process.poll() if self._process else None

    def kill(self) -> None:
        """End the server and its children at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._stop_orphans(signal.SIGKILL)

    def run_again(self) -> None:
        """Start the killed server anew at the same address; it may not be ready yet."""
        self._run()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            stack.enter_context(lock(self.data_dir.with_name(f"{self.data_dir.name}.lock")))
            self._stop_orphans(self._stop_signal)
            stack.callback(self._stop)
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @abstractmethod
    def _start(self, stack: ExitStack) -> None:
        """Start the server; what ends it again goes onto the stack."""

    @abstractmethod
    def _run(self) -> None:
        """Start the server's process where `_start` has put it."""

    def _forget_orphan(self) -> None:  # noqa: B027 (a hook: Valkey leaves nothing behind)
        """Remove what would tell the next server that the last one still runs."""

    def _orphans(self) -> list[psutil.Process]:
        """List this program's processes whose working directory is the folder; nobody owns them."""
        folder = self.data_dir.resolve()
        orphans = []
        for process in psutil.process_iter():
            # One that has just ended, or that we may not look at, is none of ours.
            with suppress(psutil.Error, OSError):
                if process.name().startswith(self.program) and Path(process.cwd()) == folder:
                    orphans.append(process)
        return orphans

    def _stop_orphans(self, with_signal: signal.Signals) -> None:
        """Stop what outlived its owner: the server first, then its children."""
        orphans = self._orphans()
        pids = {process.pid for process in orphans}
        for process in sorted(orphans, key=lambda process: parent_pid(process) in pids):
            end(process, with_signal)
        self._forget_orphan()

    def _stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            end(psutil.Process(self._process.pid), self._stop_signal)
            self._process.wait()
        self._process = None

    def _spawn(self, command: list[str], **options: Any) -> None:
        """Start in its own session, so that Ctrl-C reaches its owner alone."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.data_dir,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )

    def _wait_until(self, ready: Callable[[], bool]) -> bool:
        """Whether the server became ready; False when it ended instead."""
        process = self._process
        deadline = time.monotonic() + START_TIMEOUT_S
        while process is not None and process.poll() is None:
            if ready():
                return True
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        return False


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a lock file, which the system frees however its owner ends.

    Raises
    ------
    ConflictError
        `data_in_use`, when another process holds it.
    """
    # A marker file, the library's answer where flock is missing, would outlive a `kill -9`.
    file_lock = FileLock(path, timeout=0, fallback_to_soft=False)
    try:
        file_lock.acquire()
    except Timeout as error:
        raise ConflictError(
            "Another normbank is running on this data folder.", code="data_in_use"
        ) from error
    try:
        yield
    finally:
        file_lock.release()


def end(process: psutil.Process, with_signal: signal.Signals) -> None:
    """Ask a process to end, and insist when it does not."""
    for number in (with_signal, signal.SIGKILL):
        if not has_ended(process):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while not has_ended(process) and time.monotonic() < deadline:
            time.sleep(0.02)


def has_ended(process: psutil.Process) -> bool:
    """Whether a process is gone, or only waits for its parent to notice."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def parent_pid(process: psutil.Process) -> int | None:
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return None


def wheel_folder(package: str) -> Path:
    """Find a wheel's folder without importing it, which would have side effects."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedServerError("Install normbank[embedded] to run without servers of your own.")
    return Path(spec.origin).parent


def open_way_to(folder: Path) -> None:
    """Let other accounts pass through the folders above, without reading them."""
    for parent in folder.resolve().parents:
        mode = parent.stat().st_mode
        if not mode & 0o001:
            parent.chmod(mode | 0o011)

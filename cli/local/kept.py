"""What `normbank up` keeps running: processes that are started again when they end or hang."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from pathlib import Path

from cli.local.heartbeat import Heartbeat
from cli.local.restarts import Restarts


class Kept(ABC):
    """A process that runs for as long as `up` does.

    Parameters
    ----------
    name : for people
    log : what the process writes
    heartbeat : notices that it hangs; None: only its end is noticed
    """

    def __init__(self, name: str, log: Path, heartbeat: Heartbeat | None = None) -> None:
        self.name = name
        self.log = log
        self.heartbeat = heartbeat
        self.restarts = Restarts()
        self._started_at = time.monotonic()
        self._start_again_at = 0.0

    @property
    def quick_deaths(self) -> int:
        """Ends in a row, each after a short life."""
        return self.restarts.in_a_row

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The process's id; None while it does not run."""

    @abstractmethod
    def _status(self) -> int | None:
        """How the process has ended; None while it runs or none was started."""

    @abstractmethod
    def _start(self) -> None:
        """Start it; it need not be ready when this returns."""

    @abstractmethod
    def _kill(self) -> None:
        """End it at once, with all that belongs to it, and forget it."""

    def check(self) -> str | None:
        """Start it unless it runs; if it has ended or hangs, return a message that says so."""
        status = self._status()
        if status is not None:
            how = f"signal {-status}" if status < 0 else f"status {status}"
            return self._clean_up(f"ended ({how})")
        if self.heartbeat is not None and self.heartbeat.lost(self.pid):
            return self._clean_up("does not answer")
        if self.pid is None and time.monotonic() >= self._start_again_at:
            self._start()
            self._started_at = time.monotonic()
        return None

    def _clean_up(self, what: str) -> str:
        """Kill what is left of it and schedule the restart; a message for the operator."""
        self._kill()
        lived_s = time.monotonic() - self._started_at
        self._start_again_at = time.monotonic() + self.restarts.count(lived_s)
        return f"the {self.name} {what} after {lived_s:.0f} s; starting it again"

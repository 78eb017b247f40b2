"""A budget of memory that all scans share that one process works on."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition
from time import monotonic

from normbank.cancellation import Cancellation
from normbank.errors import BusyError, TooLargeError

SHARE = 0.4  # of the machine's memory: an API and a worker, often on one, beside a database
_FIRST_GUESS_S = 10.0  # for which a scan holds its part, until some were timed
_SMOOTHING = 0.2
_CGROUPS = Path("/sys/fs/cgroup")


class MemoryBudget:
    """Lets scans in, first come, first served, as long as what they need fits together.

    Parameters
    ----------
    total_bytes : of all together; 0: `SHARE` of the machine's, or the container's
    patience_s : for which one waits at most
    """

    def __init__(self, total_bytes: int = 0, patience_s: float = 600.0) -> None:
        self.total_bytes = total_bytes or int(SHARE * memory_bytes())
        self.reserved_bytes = 0
        self._patience_s = patience_s
        self._held_s = _FIRST_GUESS_S
        self._waiting: deque[object] = deque()
        self._changed = Condition()
        self._closed = False

    def close(self) -> None:
        """Let nobody in any more, and send away who waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def check(self, needed_bytes: int) -> None:
        """Refuse what would never fit.

        Raises
        ------
        TooLargeError
            `needs_too_much_memory`; facts hold `needed_bytes` and `budget_bytes`.
        """
        if needed_bytes > self.total_bytes:
            raise TooLargeError(
                f"The scan would take {_in_words(needed_bytes)} of memory; "
                f"the service has {_in_words(self.total_bytes)} for all scans together.",
                code="needs_too_much_memory",
                facts={"needed_bytes": needed_bytes, "budget_bytes": self.total_bytes},
            )

    @contextmanager
    def reserved(
        self, needed_bytes: int, cancellation: Cancellation | None = None
    ) -> Iterator[None]:
        """Wait for a part of the budget, and hold it; never two of them in one thread.

        Parameters
        ----------
        cancellation : ends the wait when nobody waits for the scan any more

        Raises
        ------
        TooLargeError
            See `check`.
        BusyError
            `memory_full`, when it was not free in time; `stopping`, when it was closed.
        AbandonedError
            If it was cancelled.
        """
        self.check(needed_bytes)
        cancellation = cancellation or Cancellation()
        with cancellation.calling(self._look_again):
            self._take(needed_bytes, cancellation)
        started = monotonic()
        try:
            yield
        finally:
            with self._changed:
                self.reserved_bytes -= needed_bytes
                self._held_s += _SMOOTHING * (monotonic() - started - self._held_s)
                self._changed.notify_all()

    def _look_again(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _take(self, needed_bytes: int, cancellation: Cancellation) -> None:
        place = object()

        def is_free() -> bool:
            # In turn: a large scan is not passed by small ones for ever.
            first = self._waiting[0] is place
            return first and self.reserved_bytes + needed_bytes <= self.total_bytes

        with self._changed:
            self._waiting.append(place)
            try:
                self._changed.wait_for(
                    lambda: cancellation.cancelled or self._closed or is_free(), self._patience_s
                )
                cancellation.check()
                if self._closed:
                    raise BusyError.stopping()
                if not is_free():
                    raise BusyError(
                        "Other scans hold the memory for this one.",
                        retry_after_s=max(1, round(self._held_s)),
                        code="memory_full",
                    )
                self.reserved_bytes += needed_bytes
            finally:
                self._waiting.remove(place)
                self._changed.notify_all()


def memory_bytes() -> int:
    """Memory of this machine, or of the container where that has less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_cgroup_limits()])


def _cgroup_limits(cgroups: Path = _CGROUPS) -> list[int]:
    """Limits of this process's control group and of those around it; version 2, else 1."""
    limits = []
    for folder in _own_cgroups(cgroups):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                limits.append(int((folder / name).read_text()))
            except (OSError, ValueError):  # none of this version, or "max"
                continue
    return limits


def _own_cgroups(cgroups: Path) -> list[Path]:
    folders = [cgroups, cgroups / "memory"]
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            own = cgroups / controllers / path.lstrip("/")
            folders += [own, *(up for up in own.parents if cgroups in up.parents)]
    return folders


def _in_words(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"

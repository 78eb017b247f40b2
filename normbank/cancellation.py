"""How work in other threads learns that nobody waits for its answer any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from normbank.errors import AbandonedError


class Cancellation:
    """Given along with a request's work; cancelled once, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._callbacks: list[Callable[[], None]] = []

    def cancel(self) -> None:
        """End the work at its next step, and what it waits for at once."""
        with self._lock:
            self._cancelled = True
            callbacks = tuple(self._callbacks)
        for callback in callbacks:
            callback()

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def check(self) -> None:
        """Raise AbandonedError where nobody waits any more."""
        if self._cancelled:
            raise AbandonedError

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Have something called on cancellation while the block lasts, or now where it is late."""
        with self._lock:
            self._callbacks.append(callback)
            late = self._cancelled
        if late:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)

"""How long somebody waits for PostgreSQL, also when it says nothing at all.

The server ends a statement or a wait for a lock (`lock_timeout`,
`statement_timeout`) only while it runs. A frozen server, or a cut network, is
noticed by this side: `normbank.storage.bounded` gives up and closes its socket.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from normbank.config import Settings

SLACK_S = 0.3
"""What a server that lives needs to say that a lock was not to be had."""

LEAST_S = 0.4
"""What one answer may take in a request whose patience is used up."""

REGAINED = 0.1
"""Seconds of patience that a request gains in a second in which it asks nothing."""

WORKER_LOCK_S = 60.0
WORKER_STATEMENT_S = 120.0


@dataclass(frozen=True, slots=True)
class Waits:
    """Limits of one pool of connections, in seconds; 0: none.

    Attributes
    ----------
    lock_s : for a lock
    statement_s : for a statement, its waits for locks included
    idle_s : a transaction that does nothing is ended by the server
    pool_s : for a connection while all of the pool are taken
    """

    lock_s: float = 5.0
    statement_s: float = 30.0
    idle_s: float = 30.0
    pool_s: float = 2.0

    @classmethod
    def of(cls, settings: Settings) -> Waits:
        """Those of a service that answers people."""
        return cls(
            settings.lock_timeout_s, settings.statement_timeout_s, settings.idle_transaction_s
        )

    @classmethod
    def of_worker(cls, settings: Settings) -> Waits:
        """Those of a job: an hour's work is not given up for a lock that is late."""
        return cls(
            max(settings.lock_timeout_s, WORKER_LOCK_S),
            max(settings.statement_timeout_s, WORKER_STATEMENT_S),
            settings.idle_transaction_s,
            WORKER_LOCK_S,
        )

    @property
    def answer_s(self) -> float | None:
        """How long a server may be silent before its connection is closed."""
        return self.statement_s + self.lock_s if self.statement_s else None


MIGRATION = Waits(0, 0, 0, 60)
"""A migration takes as long as it takes, its turn too."""


class Patience:
    """What is left of the seconds that one request spends on waiting for the database.

    Every wait takes from it: without that, a request that waits for a
    thread, a connection, a row and a lock would wait for each of them in full.

    Parameters
    ----------
    seconds : at the start

    Attributes
    ----------
    exhausted : the server was silent for longer than it may be
    """

    def __init__(self, seconds: float) -> None:
        self.exhausted = False
        self._most = self._left = seconds
        self._since = time.monotonic()
        self._queued = True

    def queue(self) -> None:
        """Count from now on the time until the next question as spent: a thread is waited for."""
        self._since, self._queued = time.monotonic(), True

    @contextmanager
    def waiting(self) -> Iterator[float]:
        """How many seconds the next answer may take; what it takes is spent."""
        self._settle()
        try:
            yield max(self._left, LEAST_S)
        finally:
            self._queued = True
            self._settle()
            self._queued = False

    def _settle(self) -> None:
        now = time.monotonic()
        passed = now - self._since
        change = -passed if self._queued else REGAINED * passed
        self._left, self._since = min(self._left + change, self._most), now


_current: ContextVar[Patience | None] = ContextVar("patience", default=None)


@contextmanager
def patient(seconds: float) -> Iterator[Patience]:
    """Bound all waits for the database within the block, in threads it starts too."""
    patience = Patience(seconds)
    token = _current.set(patience)
    try:
        yield patience
    finally:
        _current.reset(token)


@contextmanager
def allowance(most_s: float | None) -> Iterator[float | None]:
    """Seconds that the next answer may take here; None: any.

    Parameters
    ----------
    most_s : where no request is being answered, and at most
    """
    patience = _current.get()
    if patience is None:
        yield most_s
        return
    with patience.waiting() as left_s:
        yield left_s if most_s is None else min(left_s, most_s)


def is_exhausted() -> bool:
    """Whether the request that is being answered has waited in vain already."""
    patience = _current.get()
    return patience is not None and patience.exhausted


def note_silence() -> None:
    patience = _current.get()
    if patience is not None:
        patience.exhausted = True

"""Which workers live: each of their processes says so every few seconds."""

from __future__ import annotations

import os
import socket

from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import WorkerHeartbeat, WorkerProcess
from normbank.storage.workers import WorkerStore

BEAT_S = 2.0
ALIVE_WITHIN_S = 15.0
FORGET_AFTER_S = 86_400.0


def worker_name(main_pid: int) -> str:
    """The name of a worker of this machine, by its main process."""
    return f"{socket.gethostname()}:{main_pid}"


def own_name(process: WorkerProcess) -> str:
    """The name of the worker that this process belongs to."""
    return worker_name(os.getpid() if process is WorkerProcess.MAIN else os.getppid())


class Workers:
    """Heartbeats of all workers of this service.

    Parameters
    ----------
    sessions : makes database sessions
    """

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def begin(self, name: str, process: WorkerProcess) -> None:
        """Say that a process of a worker has started."""
        with self._sessions.begin() as session:
            WorkerStore(session).begin(name, process)

    def beat(self, name: str, process: WorkerProcess) -> None:
        """Say that a process of a worker is alive; call it every `BEAT_S`."""
        with self._sessions.begin() as session:
            WorkerStore(session).beat(name, process)

    def end(self, name: str) -> None:
        """Forget a worker that ends as it should."""
        with self._sessions.begin() as session:
            WorkerStore(session).end(name)

    def forget_lost(self) -> None:
        """Forget workers that have been silent for a day."""
        with self._sessions.begin() as session:
            WorkerStore(session).end_silent(FORGET_AFTER_S)

    def all(self) -> tuple[WorkerHeartbeat, ...]:
        """Every worker that was seen in the last day, by name."""
        with self._sessions() as session:
            return WorkerStore(session).heartbeats()

    def alive(self, within_s: float = ALIVE_WITHIN_S) -> tuple[WorkerHeartbeat, ...]:
        """Those whose two processes were seen in the last `within_s` seconds."""
        return tuple(worker for worker in self.all() if worker.silent_s <= within_s)

    def silent_s(self, name: str) -> float | None:
        """Seconds since the quieter process of a worker was seen; None: it is not known."""
        return next((worker.silent_s for worker in self.all() if worker.name == name), None)

"""Rows of the workers' heartbeats."""

from __future__ import annotations

import math
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from normbank.entities import WorkerHeartbeat, WorkerProcess
from normbank.schema import HeartbeatRow


class WorkerStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    def begin(self, name: str, process: WorkerProcess) -> None:
        """A process starts; one of the same name that was there before is forgotten."""
        started = insert(HeartbeatRow).values(name=name, process=process)
        moments = {"started_at": func.now(), "seen_at": func.now()}
        self._session.execute(started.on_conflict_do_update(constraint=_KEY, set_=moments))

    def beat(self, name: str, process: WorkerProcess) -> None:
        """A process was seen now."""
        seen = insert(HeartbeatRow).values(name=name, process=process)
        moment = {"seen_at": func.now()}
        self._session.execute(seen.on_conflict_do_update(constraint=_KEY, set_=moment))

    def end(self, name: str) -> None:
        """A worker has ended as it should."""
        self._session.execute(delete(HeartbeatRow).where(HeartbeatRow.name == name))

    def end_silent(self, silent_s: float) -> None:
        """Forget workers that nobody has seen for so many seconds."""
        before = func.now() - timedelta(seconds=silent_s)
        self._session.execute(delete(HeartbeatRow).where(HeartbeatRow.seen_at < before))

    def heartbeats(self) -> tuple[WorkerHeartbeat, ...]:
        """Every worker, by name."""
        statement = (
            select(
                HeartbeatRow.name,
                func.min(HeartbeatRow.started_at),
                func.extract("epoch", func.now() - func.min(HeartbeatRow.seen_at)),
                func.count(),
            )
            .group_by(HeartbeatRow.name)
            .order_by(HeartbeatRow.name)
        )
        return tuple(
            WorkerHeartbeat(name, started_at, _silence(float(silent_s), processes))
            for name, started_at, silent_s, processes in self._session.execute(statement)
        )


_KEY = "pk_worker_heartbeat"


def _silence(silent_s: float, processes: int) -> float:
    return silent_s if processes == len(WorkerProcess) else math.inf

"""Workers, as their heartbeats show them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class WorkerProcess(StrEnum):
    """The two processes of a worker: one takes messages, the other one does the work."""

    MAIN = "main"
    POOL = "pool"


@dataclass(frozen=True, slots=True)
class WorkerHeartbeat:
    """One worker.

    Attributes
    ----------
    name : host and process id of its main process
    started_at : when its main process began
    silent_s : seconds since the quieter of its two processes was seen, by the
        database's clock; infinite while one of them has not been seen at all
    """

    name: str
    started_at: datetime
    silent_s: float

"""Says that a process of this worker is alive, from a thread of that process.

The main process and the pool's child each say it for themselves: a worker
whose child hangs does no work, however lively its main process is.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from normbank.config import Settings
from normbank.entities import WorkerProcess
from normbank.services.workers import BEAT_S, Workers, own_name
from normbank.storage.database import make_engine, make_sessions

log = logging.getLogger(__name__)


class Heartbeat:
    """Beats until it is stopped, on a connection of its own.

    Parameters
    ----------
    settings : name the database
    process : which of the worker's two this one is
    """

    def __init__(self, settings: Settings, process: WorkerProcess) -> None:
        self._database = make_engine(settings.database_url, pool_size=1)
        self._workers = Workers(make_sessions(self._database))
        self._process, self._name = process, own_name(process)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and tell that the worker ends as it should."""
        self._stopping.set()

    def _run(self) -> None:
        silent = not self._say(self._workers.begin)
        while not self._stopping.wait(BEAT_S):
            beaten = self._say(self._workers.beat)
            if silent is beaten:  # one line when it falls silent, one when it is heard again
                silent = not beaten
                log.warning("no heartbeat" if silent else "heartbeats again")
        self._say(lambda name, _process: self._workers.end(name))
        self._database.dispose()

    def _say(self, word: Callable[[str, WorkerProcess], None]) -> bool:
        """Whether the database has taken it; it may be away for a moment."""
        try:
            word(self._name, self._process)
        except SQLAlchemyError:
            return False
        return True

"""Versions that begin to be served, on whichever replica that was asked, reach this device.

Every request asks the database which version is active, so no replica can
answer with another one. This only loads the new version's tensors onto the
device before the first request has to wait for them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import psycopg
from sqlalchemy import make_url

from normbank.storage.bounded import connect_bounded
from normbank.storage.database import LINE
from normbank.storage.domains import SERVED_CHANNEL

log = logging.getLogger(__name__)

ANSWER_S = 5.0
_RETRY_S = 2.0
_STOP_LOOK_S = 0.5


class PromotionListener:
    """Listens to PostgreSQL on a connection of its own, and polls now and then.

    Parameters
    ----------
    database_url : PostgreSQL
    preload : called with the id of a domain that another version is served of
    preload_all : called at times, for what was missed while the connection was lost
    poll_s : seconds between two such polls
    """

    def __init__(
        self,
        database_url: str,
        preload: Callable[[str], None],
        preload_all: Callable[[], None],
        *,
        poll_s: float,
    ) -> None:
        url = make_url(database_url).set(drivername="postgresql")
        self._url = url.render_as_string(hide_password=False)
        self._preload, self._preload_all, self._poll_s = preload, preload_all, poll_s
        self._stopping = threading.Event()
        self.listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)

    @property
    def wanted(self) -> bool:
        """Whether the settings ask for it."""
        return self._poll_s > 0

    def start(self) -> None:
        """Load everything now, and from then on what is promoted."""
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except psycopg.Error as error:
                self.listening.clear()
                log.warning("not listening for versions", extra={"error": type(error).__name__})
                self._stopping.wait(_RETRY_S)

    def _listen(self) -> None:
        options = {**LINE, "autocommit": True, "application_name": "normbank"}
        with connect_bounded(self._url, answer_s=ANSWER_S, **options) as listener:
            listener.execute(f"LISTEN {SERVED_CHANNEL}")
            self.listening.set()
            waited = self._poll_s  # whatever came before this connection
            while not self._stopping.is_set():
                if waited >= self._poll_s:
                    self._call(self._preload_all)
                    waited = 0.0
                for notice in listener.notifies(timeout=_STOP_LOOK_S, stop_after=1):
                    self._call(self._preload, notice.payload)
                waited += _STOP_LOOK_S

    def _call(self, preload: Callable[..., None], *domain: str) -> None:
        """Requests load what they need themselves: a failure here stops nothing."""
        try:
            preload(*domain)
        except Exception as error:
            log.warning("a version was not loaded", extra={"error": repr(error)})

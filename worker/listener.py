"""The listener: follows PACS and makes a job of every series that is to be segmented.

A process of its own, `python -m worker.listener [NAME…]`. All it knows lies in
PostgreSQL, and every step is one transaction, so it may be killed anywhere: the
next one goes on from there, and a series is segmented once for what it holds
(`normbank.services.watched`).
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from normbank.config import Settings, get_settings
from normbank.entities import JobKind, PacsPayload
from normbank.entities.pacs import SettlingSeries
from normbank.errors import NormbankError, PacsError, PacsUnreachableError
from normbank.logs import configure_logging
from normbank.pacs.changes import Source, open_source
from normbank.pacs.client import PacsClient
from normbank.pacs.config import Pacs, read_pacs_file
from normbank.pacs.routes import choose, missing_images
from normbank.wiring import CoreServices, services_of

log = logging.getLogger("worker.listener")  # also where it is run as a program


class Listener:
    """Follows one PACS.

    Parameters
    ----------
    core : where jobs and what was seen are kept
    client : of the PACS
    """

    def __init__(self, core: CoreServices, client: PacsClient) -> None:
        self._core, self._client, self._pacs = core, client, client.pacs
        self._source: Source | None = None
        self._fault = ""

    def run(self, stop: threading.Event) -> None:
        """Look every `poll_s` seconds until `stop` is set; outlives whatever goes wrong."""
        while True:
            try:
                self.look()
                self._tell("")
            except PacsError as error:
                self._source = None
                self._tell(str(error))
            except SQLAlchemyError as error:
                self._tell(f"the database cannot be used: {type(error).__name__}")
            except Exception as error:  # a fault of ours: other series, other PACS go on
                self._source = None
                self._tell(f"an unexpected fault: {type(error).__name__}", error)
            if stop.wait(self._pacs.poll_s):
                return

    def look(self) -> None:
        """See what is new, and take what has settled.

        Raises
        ------
        PacsError
        """
        watched, name = self._core.watched, self._pacs.name
        if self._source is None:
            self._source = open_source(self._client)
        more = True
        while more:
            news = self._source.look(watched.cursor(name))
            watched.notice(name, news.seen, news.cursor)
            more = news.more
        watched.finish_ended(name)
        for series in watched.settling(name):
            if self._full():
                return
            self._advance(series)

    def _advance(self, settling: SettlingSeries) -> None:
        """Look at one series again; what is wrong with it keeps no other one waiting."""
        try:
            self._count_or_take(settling)
        except PacsUnreachableError:
            raise
        except PacsError as error:
            log.warning("a series cannot be looked at", extra={"code": error.code})
            if self._has_waited(settling):
                self._core.watched.pass_over(self._pacs.name, settling.series, error.code)

    def _count_or_take(self, settling: SettlingSeries) -> None:
        watched, name, uids = self._core.watched, self._pacs.name, (settling.study, settling.series)
        found = self._client.series(*uids)
        if found is None:
            watched.pass_over(name, settling.series, "gone")
            return
        if found.modality and found.modality != "MR":
            watched.pass_over(name, settling.series, "no MR")
            return
        instances = self._client.instances(*uids)
        if len(instances) != settling.instances:
            watched.count(name, settling.series, len(instances))
            return
        waited = self._has_waited(settling)
        if not instances:
            if waited:
                watched.pass_over(name, settling.series, "no instances")
            return
        if settling.quiet_s < self._pacs.settle_s:
            return
        facts = self._client.header(*uids, instances[0])
        if missing_images(facts, len(instances)) and not waited:
            return
        choice = choose(self._pacs, facts, len(instances))
        if choice.route is None:
            watched.pass_over(name, settling.series, choice.reason)
            return
        payload = PacsPayload(name, *uids, choice.route.domain, choice.route.store)
        job = watched.take(payload, instances)
        if job is not None:
            log.info("a series is taken", extra={"pacs": name, "job": job.id})

    def _has_waited(self, settling: SettlingSeries) -> bool:
        """Whether nothing has come for so long that nothing will."""
        return settling.quiet_s >= self._pacs.settle_s + self._pacs.complete_within_s

    def _full(self) -> bool:
        """Whether so many jobs wait that the rest shall wait in the PACS."""
        counts = self._core.jobs.counts()
        unfinished = sum(count for (kind, _), count in counts.items() if kind is JobKind.PACS)
        return unfinished >= self._core.settings.queue_jobs

    def _tell(self, fault: str, error: Exception | None = None) -> None:
        """One line when something goes wrong, one when it is well again."""
        if fault != self._fault:
            extra = {"pacs": self._pacs.name, "why": fault}
            said = "following stopped" if fault else "following again"
            log.warning(said, extra=extra, exc_info=error)
        self._fault = fault


def follow(settings: Settings, watched: Sequence[Pacs], stop: threading.Event) -> None:
    """Follow some PACS, each from a thread of its own, until `stop` is set."""
    with services_of(settings) as core:
        threads = [
            threading.Thread(target=_follow_one, args=(core, pacs, stop)) for pacs in watched
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _follow_one(core: CoreServices, pacs: Pacs, stop: threading.Event) -> None:
    with PacsClient(pacs, core.limits) as client:
        Listener(core, client).run(stop)


def main(names: Sequence[str]) -> int:
    """Follow the PACS of these names, or all that are watched, until SIGTERM or Ctrl-C."""
    settings = get_settings()
    configure_logging(settings.log_level)
    try:
        file = read_pacs_file(settings.pacs_file)
        watched = [file.get(name) for name in names] or file.watched
    except NormbankError as error:
        print(f"normbank: {error} ({error.code})", file=sys.stderr)
        return 1
    if not watched:
        print("normbank: no PACS of the PACS file says watch = true", file=sys.stderr)
        return 1
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    follow(settings, watched, stop)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The services of one process, connected in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy import Engine

from normbank.budget import MemoryBudget
from normbank.config import Settings
from normbank.imaging.scan import Limits
from normbank.pacs.config import read_pacs_file
from normbank.queue import CeleryQueue, JobQueue
from normbank.services.audit import Audit
from normbank.services.cases import Cases
from normbank.services.domains import Domains
from normbank.services.files import StoredFiles
from normbank.services.integrity import Integrity
from normbank.services.jobs import Jobs
from normbank.services.keys import Keys
from normbank.services.leases import Leases
from normbank.services.segmentations import Segmentations
from normbank.services.versions import Versions
from normbank.services.watched import WatchedSeries
from normbank.services.workers import Workers
from normbank.storage.blobs import BlobStore
from normbank.storage.database import make_engine, make_sessions
from normbank.storage.patience import Waits


@dataclass(frozen=True, slots=True)
class CoreServices:
    """What the API, a worker and an operator's commands share, side by side.

    Attributes
    ----------
    database : its pool of connections; nothing is connected before the first query
    limits : of the scans that are read
    memory : for all scans that this process works on
    """

    settings: Settings
    database: Engine
    blobs: BlobStore
    queue: JobQueue
    files: StoredFiles
    integrity: Integrity
    domains: Domains
    cases: Cases
    versions: Versions
    segmentations: Segmentations
    jobs: Jobs
    leases: Leases
    watched: WatchedSeries
    workers: Workers
    keys: Keys
    audit: Audit
    limits: Limits
    memory: MemoryBudget

    @classmethod
    def of(
        cls, settings: Settings, database: Engine, blobs: BlobStore, queue: JobQueue
    ) -> CoreServices:
        """Every service over the same database, files and queue."""
        sessions = make_sessions(database)
        files = StoredFiles(sessions, blobs)
        cases = Cases(sessions, files)
        return cls(
            settings=settings,
            database=database,
            blobs=blobs,
            queue=queue,
            files=files,
            integrity=Integrity(sessions, blobs, files),
            domains=Domains(sessions, cases),
            cases=cases,
            versions=Versions(sessions),
            segmentations=Segmentations(sessions, files),
            jobs=Jobs(
                sessions,
                queue,
                files,
                queue_jobs=settings.queue_jobs,
                read_pacs=partial(read_pacs_file, settings.pacs_file),
            ),
            leases=Leases(sessions, queue, settings),
            watched=WatchedSeries(sessions, queue),
            workers=Workers(sessions),
            keys=Keys(sessions),
            audit=Audit(sessions),
            limits=Limits.of(settings),
            memory=MemoryBudget(settings.memory_budget_bytes, settings.memory_wait_s),
        )

    def over(self, database: Engine) -> CoreServices:
        """The same services over other connections."""
        services = CoreServices.of(self.settings, database, self.blobs, self.queue)
        return replace(services, memory=self.memory)

    def close(self) -> None:
        """Give the connections back."""
        self.database.dispose()


def open_services(settings: Settings, waits: Waits | None = None) -> CoreServices:
    """Everything behind the settings; without a broker's URL nothing can be announced.

    Parameters
    ----------
    waits : for the database; those of a service that answers people when left out
    """
    return CoreServices.of(
        settings,
        make_engine(settings.database_url, waits=waits or Waits.of(settings)),
        BlobStore(settings.blobs_at),
        CeleryQueue(settings.redis_url, settings.job_limit_s),
    )


@contextmanager
def services_of(settings: Settings) -> Iterator[CoreServices]:
    """The same for as long as a command runs."""
    services = open_services(settings)
    try:
        yield services
    finally:
        services.close()

"""The services of one process, connected in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Engine

from normbank.config import Settings
from normbank.imaging.scan import Limits
from normbank.queue import CeleryQueue
from normbank.services.jobs import Jobs
from normbank.services.keys import Keys
from normbank.services.registry import Registry
from normbank.storage.blobs import BlobStore
from normbank.storage.database import make_engine, make_sessions


@dataclass(frozen=True, slots=True)
class CoreServices:
    """What the API, a worker and an operator's commands share.

    Attributes
    ----------
    database : its pool of connections; nothing is connected before the first query
    limits : of the scans that are read
    """

    settings: Settings
    database: Engine
    blobs: BlobStore
    registry: Registry
    jobs: Jobs
    keys: Keys
    limits: Limits

    def close(self) -> None:
        """Give the connections back."""
        self.database.dispose()


def open_services(settings: Settings) -> CoreServices:
    """Everything behind the settings; without a broker's URL nothing can be announced."""
    database = make_engine(settings.database_url)
    sessions = make_sessions(database)
    blobs = BlobStore(settings.blobs_at)
    queue = CeleryQueue(settings.redis_url, settings.job_limit_s)
    return CoreServices(
        settings=settings,
        database=database,
        blobs=blobs,
        registry=Registry(sessions, blobs),
        jobs=Jobs(sessions, queue, settings, blobs=blobs),
        keys=Keys(sessions),
        limits=Limits.of(settings),
    )


@contextmanager
def services_of(settings: Settings) -> Iterator[CoreServices]:
    """The same for as long as a command runs."""
    services = open_services(settings)
    try:
        yield services
    finally:
        services.close()

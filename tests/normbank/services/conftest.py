from __future__ import annotations

import pytest
from sqlalchemy.orm import Session, sessionmaker

from normbank.config import Settings
from normbank.services.jobs import Jobs
from normbank.services.registry import Registry
from normbank.storage.blobs import BlobStore
from tests.support.domains import new_domain
from tests.support.services import ListQueue


@pytest.fixture
def registry(sessions: sessionmaker[Session], blobs: BlobStore) -> Registry:
    return Registry(sessions, blobs)


@pytest.fixture
def queue() -> ListQueue:
    return ListQueue()


@pytest.fixture
def jobs(sessions: sessionmaker[Session], queue: ListQueue) -> Jobs:
    return Jobs(sessions, queue, Settings())


@pytest.fixture
def domain(registry: Registry, blobs: BlobStore) -> str:
    return new_domain(registry, blobs, "a").id

from __future__ import annotations

import pytest

from normbank.services.jobs import Jobs
from normbank.services.leases import Leases
from normbank.storage.blobs import BlobStore
from normbank.wiring import CoreServices
from tests.support.domains import new_domain


@pytest.fixture
def jobs(core: CoreServices) -> Jobs:
    return core.jobs


@pytest.fixture
def leases(core: CoreServices) -> Leases:
    return core.leases


@pytest.fixture
def domain(core: CoreServices, blobs: BlobStore) -> str:
    return new_domain(core, blobs, "a").id

from __future__ import annotations

from collections.abc import Iterator

import pytest

from normbank.config import Settings
from normbank.imaging.scan import Limits
from tests.support.orthanc import Orthanc, running_orthanc


@pytest.fixture(scope="package")
def orthanc() -> Iterator[Orthanc]:
    with running_orthanc() as server:
        yield server


@pytest.fixture(scope="package")
def limits() -> Limits:
    return Limits.of(Settings())

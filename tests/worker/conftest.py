"""A worker's workplace on throwaway services."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.seed import seed_builtin_domains
from normbank.config import Settings
from worker.workplace import Workplace, open_workplace


@pytest.fixture
def place(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Workplace]:
    """The shipped backbone with its domains, and nothing else."""
    settings = Settings(
        database_url=database_url, redis_url=redis_url, data_dir=tmp_path, lease_s=1.0
    )
    opened = open_workplace(settings)
    seed_builtin_domains(opened.registry)
    yield opened
    opened.close()

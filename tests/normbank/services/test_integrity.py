"""Stored files are read once a day, and those that are nobody's go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from normbank.services.integrity import CORRUPT_BLOBS
from normbank.storage.blobs import BlobStore
from normbank.wiring import CoreServices
from tests.support.domains import new_domain


@pytest.fixture
def case_files(core: CoreServices, blobs: BlobStore) -> list[str]:
    """The two files of a recorded case."""
    new_domain(core, blobs, "a")
    (case, *_) = core.cases.of("a")
    return [case.scan_sha256, case.labels_sha256]


def path_of(folder: Path, sha256: str) -> Path:
    return folder / "blobs" / "sha256" / sha256[:2] / sha256[2:]


def scrub_all(core: CoreServices) -> list[str]:
    """Look at everything that is due; the prefixes."""
    prefixes = []
    while (prefix := core.integrity.scrub_next()) is not None:
        prefixes.append(prefix)
    return prefixes


def due_again(core: CoreServices) -> None:
    for _ in range(256):
        core.integrity.scrub_next(every_s=-1.0)


def test_every_prefix_is_due_once_a_day(core: CoreServices) -> None:
    assert sorted(scrub_all(core)) == [f"{number:02x}" for number in range(256)]
    assert scrub_all(core) == []


def test_a_rotten_file_and_a_missing_one_are_found_and_mended_by_putting_them_again(
    core: CoreServices, blobs: BlobStore, case_files: list[str], tmp_path: Path
) -> None:
    scan, labels = case_files
    contents = {sha256: blobs.get_bytes(sha256) for sha256 in case_files}
    path_of(tmp_path, scan).write_bytes(b"rotten")
    path_of(tmp_path, labels).unlink()
    scrub_all(core)
    assert core.integrity.count_corrupt() == 2
    assert core.integrity.tallies() == {CORRUPT_BLOBS: 2}
    blobs.put_bytes(contents[scan])
    assert core.integrity.count_corrupt() == 1
    blobs.put_bytes(contents[labels])
    due_again(core)
    assert core.integrity.count_corrupt() == 0


def test_a_file_without_a_row_goes_after_a_day_and_one_with_a_row_stays(
    core: CoreServices, blobs: BlobStore, case_files: list[str], tmp_path: Path
) -> None:
    old, young = blobs.put_bytes(b"an old orphan"), blobs.put_bytes(b"a young orphan")
    for sha256 in (old, *case_files):
        os.utime(path_of(tmp_path, sha256), (0, 0))
    scrub_all(core)
    assert not blobs.exists(old)
    assert blobs.exists(young)
    assert all(blobs.exists(sha256) for sha256 in case_files)


def test_a_deleted_file_is_no_longer_counted_as_corrupt(
    core: CoreServices, blobs: BlobStore, tmp_path: Path
) -> None:
    sha256 = blobs.put_bytes(b"nobody's")
    path_of(tmp_path, sha256).write_bytes(b"rotten")
    scrub_all(core)
    assert core.integrity.count_corrupt() == 1
    core.files.discard([sha256])
    assert core.integrity.count_corrupt() == 0


def test_reading_is_paced_by_the_bytes_that_were_read(
    core: CoreServices, case_files: list[str], tmp_path: Path
) -> None:
    counts: list[int] = []
    while core.integrity.scrub_next(counts.append) is not None:
        pass
    stored = [path for path in (tmp_path / "blobs" / "sha256").rglob("*") if path.is_file()]
    assert len(stored) >= len(case_files)
    assert sum(counts) == sum(path.stat().st_size for path in stored)

"""Where uploads lie while their requests last: one folder per process."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "lock"


@contextmanager
def open_spool(parent: Path) -> Iterator[Path]:
    """A folder of this process below `parent`, until the block ends.

    It holds a locked file, and the kernel lets go of the lock when the process
    ends, however it ends. So folders whose lock is free were left behind, and
    are removed first.
    """
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # One process at a time looks and makes: none sees a folder before it is locked.
    with _locked(parent / LOCK, wait=True):
        _remove_abandoned(parent)
        folder = Path(tempfile.mkdtemp(prefix="api-", dir=parent))
        held = _lock(folder / LOCK, wait=False)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.iterdir():
        if not folder.is_dir():
            continue
        try:
            with _locked(folder / LOCK, wait=False):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # locked by a living process, or not ours to remove


@contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[None]:
    held = _lock(path, wait=wait)
    try:
        yield
    finally:
        os.close(held)


def _lock(path: Path, *, wait: bool) -> int:
    """Descriptor of a locked file; closing it unlocks. BlockingIOError if it is taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor

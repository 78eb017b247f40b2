"""Where copies of scans lie while somebody reads them: one private folder per process."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

LOCK = "lock"


@contextmanager
def open_spool(parent: Path, prefix: str = "api-") -> Iterator[Path]:
    """A folder of this process below `parent`, until the block ends; nobody else may look.

    It holds a locked file, and the kernel lets go of the lock when the process
    ends, however it ends. So folders whose lock is free were left behind, and
    are removed first.
    """
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(PermissionError):  # somebody else's folder; ours below it is private anyway
        parent.chmod(0o700)
    # One process at a time looks and makes: none sees a folder before it is locked.
    with _lock_file(parent, wait=True):
        _remove_abandoned(parent)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = _lock_file(folder)
        lock.acquire()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def sweep_spool(parent: Path) -> None:
    """Remove what processes that ended have left behind."""
    if parent.is_dir():
        with _lock_file(parent, wait=True):
            _remove_abandoned(parent)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.iterdir():
        if not folder.is_dir():
            continue
        try:
            with _lock_file(folder):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # locked by a living process, or not ours to remove


def _lock_file(folder: Path, *, wait: bool = False) -> FileLock:
    """The folder's lock, not taken yet; Timeout, an OSError, where it is held and nobody waits."""
    return FileLock(
        folder / LOCK,
        timeout=-1 if wait else 0,
        mode=0o600,
        thread_local=False,
        # A marker file, the library's answer where flock is missing, would outlive a `kill -9`.
        fallback_to_soft=False,
    )

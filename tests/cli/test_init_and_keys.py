"""`normbank init` and `normbank keys`, as an operator runs them."""

from __future__ import annotations

import stat
import subprocess

import pytest
from click.testing import Result
from sqlalchemy import make_url, text
from typer.testing import CliRunner

from cli.local.builtin_domains import NAMES
from cli.local.processes import child_environment, python
from cli.main import app
from normbank.config import Settings, get_settings
from normbank.entities import Role
from normbank.storage.blobs import BlobStore
from normbank.storage.database import make_engine, migrate, migrations_at_head
from normbank.storage.roles import role_warning
from normbank.wiring import CoreServices


@pytest.fixture
def normbank(unmigrated_url, tmp_path, monkeypatch):
    """Run a command against an empty database."""
    monkeypatch.setenv("NORMBANK_DATABASE_URL", unmigrated_url)
    monkeypatch.setenv("NORMBANK_DATA_DIR", str(tmp_path / "data"))

    def run(*arguments: str) -> Result:
        get_settings.cache_clear()
        return CliRunner().invoke(app, arguments)

    yield run
    get_settings.cache_clear()


@pytest.fixture
def core(unmigrated_url, tmp_path, queue):
    engine = make_engine(unmigrated_url)
    yield CoreServices.of(Settings(), engine, BlobStore(str(tmp_path / "none")), queue)
    engine.dispose()


def test_init_makes_a_database_ready_and_keeps_what_is_there(normbank, core, tmp_path):
    key_file = tmp_path / "data" / "admin.key"
    first = normbank("init")
    assert first.exit_code == 0, first.stderr
    assert migrations_at_head(core.database)
    domains = core.domains.page().items
    assert {domain.id for domain in domains} == set(NAMES)
    assert all(domain.active_version == 1 for domain in domains)
    secret = key_file.read_text()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert core.keys.authenticate(secret.strip()).role is Role.ADMIN

    verified = normbank("audit", "verify")
    assert verified.exit_code == 0, verified.stderr
    assert verified.stdout.endswith("events, chain intact\n")

    second = normbank("init")
    assert second.exit_code == 0, second.stderr
    assert "kept the admin keys" in second.stdout
    assert key_file.read_text() == secret
    key_file.unlink()  # as in a new pod
    assert normbank("init").exit_code == 0
    assert not key_file.exists()
    assert len(core.keys.list()) == 1


def test_init_takes_a_secret_that_lies_in_the_key_file(normbank, core, tmp_path):
    key_file = tmp_path / "mounted"
    key_file.write_text("nb_0123456789_" + "x" * 43 + "\n")
    assert normbank("init", "--key-file", str(key_file)).exit_code == 0
    (key,) = core.keys.list()
    assert core.keys.authenticate(key_file.read_text().strip()).id == key.id
    key_file.write_text("letmein")
    core.keys.revoke(key.id)
    refused = normbank("init", "--key-file", str(key_file))
    assert refused.exit_code == 1
    assert "bad_secret" in refused.stderr


def test_init_as_the_owner_equips_the_role_of_the_service(unmigrated_url, tmp_path):
    service = make_url(unmigrated_url).set(username="test_init_service", password="secret")
    url = service.render_as_string(hide_password=False)
    environment = child_environment(
        {
            "NORMBANK_OWNER_URL": unmigrated_url,
            "NORMBANK_DATABASE_URL": url,
            "NORMBANK_DATA_DIR": str(tmp_path),
        }
    )
    done = subprocess.run(
        python("cli", "init"), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    engine, owner = make_engine(url), make_engine(unmigrated_url)
    assert role_warning(engine) == ""
    engine.dispose()
    with owner.begin() as connection:
        connection.execute(text("DROP OWNED BY test_init_service"))
        connection.execute(text("DROP ROLE test_init_service"))
    owner.dispose()


def test_events_cut_off_the_trail_are_found_by_verify(normbank, core):
    assert normbank("init").exit_code == 0
    head = normbank("audit", "verify").stdout.splitlines()[0].removeprefix("head ")
    number = int(head.split(":")[0])
    with core.database.begin() as connection:
        connection.execute(text("ALTER TABLE audit_event DISABLE TRIGGER USER"))
        connection.execute(text(f"DELETE FROM audit_event WHERE number > {number - 3}"))
        connection.execute(text("ALTER TABLE audit_event ENABLE TRIGGER USER"))
    cut = normbank("audit", "verify")
    assert cut.exit_code == 1
    assert f"events {number - 2} to {number} are missing" in cut.stderr
    with core.database.begin() as connection:
        connection.execute(text("ALTER TABLE audit_anchor DISABLE TRIGGER USER"))
        connection.execute(
            text(
                "UPDATE audit_anchor SET (number, hash) ="
                " (SELECT number, hash FROM audit_event ORDER BY number DESC LIMIT 1)"
            )
        )
    assert normbank("audit", "verify").exit_code == 0
    assert normbank("audit", "verify", "--head", head).exit_code == 1
    assert normbank("audit", "verify", "--head", "nonsense").exit_code == 1


def test_keys_are_made_listed_and_revoked(normbank, core, unmigrated_url):
    migrate(unmigrated_url)
    made = normbank("keys", "create", "the PACS", "--role", "segment", "--days", "30")
    key = core.keys.authenticate(made.stdout.strip())
    assert (key.name, key.role) == ("the PACS", Role.SEGMENT)
    assert key.expires_at is not None

    listed = normbank("keys", "list").stdout
    assert "the PACS" in listed
    assert made.stdout.strip() not in listed

    assert normbank("keys", "revoke", key.id).exit_code == 0
    assert core.keys.authenticate(made.stdout.strip()) is None
    unknown = normbank("keys", "revoke", "nobody")
    assert unknown.exit_code == 1
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

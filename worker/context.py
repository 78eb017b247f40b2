"""What one worker process works with, built once, at its first job."""

from __future__ import annotations

import atexit
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock

from models.state import State
from normbank.config import Settings, get_settings
from normbank.entities import DomainState
from normbank.errors import StateError
from normbank.storage.patience import Waits
from normbank.storage.spool import open_spool
from normbank.wiring import CoreServices, open_services
from pipeline.networks import Networks
from pipeline.sound import refuse


@dataclass(frozen=True)
class WorkerContext:
    """Services and networks of one worker process.

    Attributes
    ----------
    name : of the process, as leases show it
    spool_dir : where copies of scans lie while they are read
    """

    core: CoreServices
    networks: Networks
    name: str
    spool_dir: Path

    def load(self, version: DomainState) -> State:
        """Tensors of a stored state; see `Networks.load`."""
        return self.networks.load(version, self.core.versions.state_bytes)

    def refuse(self, version: DomainState, error: StateError) -> None:
        """Quarantine a version that failed its checks, so that the one before is served."""
        refuse(self.core, version, error)


_opening = Lock()


def worker_context() -> WorkerContext:
    """This process's context, from its settings; opened once, whoever asks first."""
    with _opening:
        return _context()


@cache
def _context() -> WorkerContext:
    return open_context(get_settings())


def open_context(settings: Settings) -> WorkerContext:
    """Load the backbone and connect the services.

    Raises
    ------
    models.backbone.BrokenBackboneError
    """
    # First: what a killed process has left behind shall not wait for the backbone. The
    # folder is this process's until it ends, and the next one removes it if it cannot.
    spools = ExitStack()
    atexit.register(spools.close)
    spool_dir = spools.enter_context(open_spool(settings.spool_at, "worker-"))
    networks, name = Networks.open(settings), f"{socket.gethostname()}:{os.getpid()}"
    core = open_services(settings, Waits.of_worker(settings))
    return WorkerContext(core, networks, name, spool_dir)

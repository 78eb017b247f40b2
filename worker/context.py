"""What one worker process works with, built once, at its first job."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from threading import Lock

from models.state import State
from normbank.config import Settings, get_settings
from normbank.entities import DomainState
from normbank.storage.patience import Waits
from normbank.wiring import CoreServices, open_services
from pipeline.networks import Networks


@dataclass(frozen=True)
class WorkerContext:
    """Services and networks of one worker process.

    Attributes
    ----------
    name : of the process, as leases show it
    """

    core: CoreServices
    networks: Networks
    name: str

    def load(self, version: DomainState) -> State:
        """Tensors of a stored state; see `Networks.load`."""
        return self.networks.load(version, self.core.versions.state_bytes)


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
    networks, name = Networks.open(settings), f"{socket.gethostname()}:{os.getpid()}"
    core = open_services(settings, Waits.of_worker(settings))
    return WorkerContext(core, networks, name)

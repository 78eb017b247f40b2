"""What one worker process works with, built once, at its first job."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from threading import Lock

from models.state import State
from normbank.config import Settings, get_settings
from normbank.entities import DomainState
from normbank.imaging.scan import Limits
from normbank.services.jobs import Jobs
from normbank.services.registry import Registry
from normbank.storage.blobs import BlobStore
from normbank.wiring import open_services
from pipeline.networks import Networks


@dataclass(frozen=True)
class WorkerContext:
    """Services and networks of one worker process."""

    settings: Settings
    registry: Registry
    jobs: Jobs
    blobs: BlobStore
    limits: Limits
    networks: Networks
    name: str
    close: Callable[[], None]

    def load(self, version: DomainState) -> State:
        """Tensors of a stored state; see `Networks.load`."""
        return self.networks.load(version, self.registry.state_bytes)


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
    networks, core = Networks.open(settings), open_services(settings)
    return WorkerContext(
        settings=settings,
        registry=core.registry,
        jobs=core.jobs,
        blobs=core.blobs,
        limits=core.limits,
        networks=networks,
        close=core.close,
        name=f"{socket.gethostname()}:{os.getpid()}",
    )

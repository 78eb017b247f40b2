"""What one worker process works with, built once, at its first job."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.backbone import SHIPPED, Backbone, load_backbone
from models.predict import Predictor, choose_device, choose_precision
from models.state import BrokenStateError, State
from normbank.config import Settings, get_settings
from normbank.entities import DomainState
from normbank.errors import StateError
from normbank.imaging.brain import SlicePredictor
from normbank.imaging.scan import Limits
from normbank.queue import CeleryQueue
from normbank.services.jobs import Jobs
from normbank.services.registry import Registry
from normbank.storage.blobs import BlobStore
from normbank.storage.database import make_engine, make_sessions


@dataclass(frozen=True)
class Workplace:
    """Services and device of one worker process."""

    settings: Settings
    registry: Registry
    jobs: Jobs
    blobs: BlobStore
    limits: Limits
    backbone: Backbone
    predictor: Predictor
    name: str
    close: Callable[[], None]

    def load(self, stored: DomainState) -> State:
        """Tensors of a stored state, checked.

        Raises
        ------
        StateError
        """
        data = self.registry.state_bytes(stored.sha256)
        try:
            state = State.from_bytes(data, backbone=stored.backbone, sha256=stored.sha256)
            state.check(self.backbone.spec, self.backbone.sha256)
        except BrokenStateError as error:
            raise StateError(f"State {stored.ref} is refused: {error}.") from error
        return state

    def predict_with(self, state: State, digest: Any = None) -> SlicePredictor:
        """The network with one state, as a function of slices; see `Predictor.classes`."""
        index = self.predictor.bank.add(state)

        def predict(slices: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
            return self.predictor.classes(slices, np.full(len(slices), index), digest)

        return predict


@cache
def workplace() -> Workplace:
    """This process's workplace, from its settings."""
    return open_workplace(get_settings())


def open_workplace(settings: Settings) -> Workplace:
    """Load the backbone and connect the services.

    Raises
    ------
    models.backbone.BrokenBackboneError
    """
    torch.set_num_threads(settings.threads or os.cpu_count() or 1)
    device = choose_device(settings.device)
    backbone = load_backbone(settings.backbone_dir or SHIPPED)
    database = make_engine(settings.database_url)
    sessions = make_sessions(database)
    blobs = BlobStore(settings.blobs_at)
    return Workplace(
        settings=settings,
        registry=Registry(sessions, blobs),
        jobs=Jobs(
            sessions,
            CeleryQueue(settings.redis_url, settings.job_limit_s),
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
        ),
        blobs=blobs,
        limits=Limits.of(settings),
        backbone=backbone,
        predictor=Predictor(
            backbone,
            device=device,
            precision=choose_precision(settings.precision, device),
            batch_slices=settings.batch_slices,
        ),
        close=database.dispose,
        name=f"{socket.gethostname()}:{os.getpid()}",
    )

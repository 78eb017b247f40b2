"""What one worker process works with, built once, at its first job."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.backbone import SHIPPED, Backbone, load_backbone
from models.predict import Predictor
from models.shelf import OffShelfError, Shelf
from models.spec import BackboneSpec
from models.state import BrokenStateError, State
from normbank.config import Settings, get_settings
from normbank.entities import DomainState
from normbank.errors import ConflictError, StateError
from normbank.imaging.brain import SlicePredictor
from normbank.imaging.scan import Limits
from normbank.queue import CeleryQueue
from normbank.services.jobs import Jobs
from normbank.services.registry import Registry
from normbank.storage.blobs import BlobStore
from normbank.storage.database import make_engine, make_sessions


@dataclass(frozen=True)
class Workplace:
    """Services and device of one worker process.

    Attributes
    ----------
    backbone : the current one; what is learnt belongs to it
    shelf : it and the older ones, for what is served on them
    """

    settings: Settings
    registry: Registry
    jobs: Jobs
    blobs: BlobStore
    limits: Limits
    backbone: Backbone
    shelf: Shelf
    name: str
    close: Callable[[], None]

    @property
    def predictor(self) -> Predictor:
        """The current backbone on the device."""
        return self.shelf.current

    def spec_of(self, stored: DomainState) -> BackboneSpec:
        """Conventions of the backbone that a stored state belongs to.

        Raises
        ------
        ConflictError
            `other_backbone`, if that is neither current nor on the shelf.
        """
        try:
            return self.shelf.predictor(stored.backbone).spec
        except OffShelfError as error:
            raise ConflictError(
                f"{stored.ref} belongs to a backbone that is not on the shelf.",
                code="other_backbone",
            ) from error

    def load(self, stored: DomainState) -> State:
        """Tensors of a stored state, checked.

        Raises
        ------
        ConflictError
            `other_backbone`.
        StateError
        """
        spec = self.spec_of(stored)
        data = self.registry.state_bytes(stored.sha256)
        try:
            state = State.from_bytes(data, backbone=stored.backbone, sha256=stored.sha256)
            state.check(spec, stored.backbone)
        except BrokenStateError as error:
            raise StateError(f"State {stored.ref} is refused: {error}.") from error
        return state

    def predict_with(
        self,
        state: State,
        digest: Any = None,
        told: Callable[[int], None] = lambda _count: None,
    ) -> SlicePredictor:
        """The state's network with it, as a function of slices; see `Predictor.classes`."""
        predictor = self.shelf.predictor(state.backbone)
        row = predictor.bank.add(state)

        def predict(
            slices: npt.NDArray[np.float32], *, consecutive: bool = False
        ) -> npt.NDArray[np.uint8]:
            domains = np.full(len(slices), row)
            return predictor.classes(slices, domains, digest, consecutive=consecutive, told=told)

        return predict


_opening = Lock()


def workplace() -> Workplace:
    """This process's workplace, from its settings; opened once, whoever asks first."""
    with _opening:
        return _workplace()


@cache
def _workplace() -> Workplace:
    return open_workplace(get_settings())


def open_workplace(settings: Settings) -> Workplace:
    """Load the backbone and connect the services.

    Raises
    ------
    models.backbone.BrokenBackboneError
    """
    torch.set_num_threads(settings.threads or os.cpu_count() or 1)
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
        shelf=Shelf.stock(
            backbone,
            settings.older_backbone_dirs,
            device=settings.device,
            precision=settings.precision,
            batch_slices=settings.batch_slices,
            backend=settings.backend,
        ),
        close=database.dispose,
        name=f"{socket.gethostname()}:{os.getpid()}",
    )

"""The networks of one process: backbones on a device, and the states they run with."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.backbone import SHIPPED, Backbone, load_backbone
from models.pool import BackbonePool, StateSlot, UnknownBackboneError
from models.predict import Predictor
from models.spec import BackboneSpec
from models.state import BrokenStateError, State
from normbank.config import Settings
from normbank.entities import DomainState
from normbank.errors import ConflictError, StateError
from normbank.imaging.brain import SlicePredictor

ReadState = Callable[[str], bytes]
"""The bytes of a stored state, by its sha256."""


class Networks:
    """Every backbone that is served, on one device, each with its bank of states.

    Parameters
    ----------
    backbone : the current one; what is learnt belongs to it
    pool : it and the older ones, for what is served on them
    """

    def __init__(self, backbone: Backbone, pool: BackbonePool) -> None:
        self.backbone = backbone
        self.pool = pool
        self._placing = Lock()

    @classmethod
    def open(cls, settings: Settings, backbone: Backbone | None = None) -> Networks:
        """Measure what computes the current backbone fastest.

        Parameters
        ----------
        backbone : from `load_current`, where it is there already

        Raises
        ------
        models.backbone.BrokenBackboneError
        models.backends.BackendError
        """
        torch.set_num_threads(settings.threads or os.cpu_count() or 1)
        backbone = backbone or load_current(settings)
        pool = BackbonePool.open(
            backbone,
            settings.older_backbone_dirs,
            device=settings.device,
            precision=settings.precision,
            batch_slices=settings.batch_slices,
            backend=settings.backend,
        )
        return cls(backbone, pool)

    @property
    def current(self) -> Predictor:
        """The current backbone on the device."""
        return self.pool.current

    @property
    def spec(self) -> BackboneSpec:
        """The current backbone's conventions."""
        return self.backbone.spec

    def predictor_of(self, version: DomainState) -> Predictor:
        """The backbone that a stored state belongs to, loaded at first use.

        Raises
        ------
        ConflictError
            `other_backbone`, if it cannot be served.
        """
        try:
            return self.pool.predictor(version.backbone)
        except UnknownBackboneError as error:
            raise other_backbone(version, self.backbone.sha256) from error

    def can_serve(self, version: DomainState) -> bool:
        """Whether the backbone that a stored state belongs to is here."""
        return self.pool.spec(version.backbone) is not None

    def load(self, version: DomainState, read: ReadState) -> State:
        """The tensors of a stored state, checked.

        Raises
        ------
        ConflictError
            `other_backbone`.
        StateError
            If its bytes are not what the row says, or do not fit its backbone.
        """
        return checked_state(version, self.predictor_of(version).spec, read)

    def place(self, version: DomainState, read: ReadState) -> StateSlot:
        """Where a stored state lies on the device; it is loaded and checked at first use.

        Raises
        ------
        ConflictError, StateError
            As `load`.
        """
        bank = self.predictor_of(version).bank
        if version.sha256 in bank:
            return StateSlot(version.backbone, bank.index(version.sha256))
        state = self.load(version, read)
        with self._placing:
            return StateSlot(version.backbone, bank.add(state))

    def predict_with(
        self,
        state: State,
        digest: Any = None,
        on_slices: Callable[[int], None] = lambda _count: None,
    ) -> SlicePredictor:
        """The state's network with it, as a function of slices; see `Predictor.classes`."""
        predictor = self.pool.predictor(state.backbone)
        with self._placing:
            row = predictor.bank.add(state)

        def predict(
            slices: npt.NDArray[np.float32], *, consecutive: bool = False
        ) -> npt.NDArray[np.uint8]:
            rows = np.full(len(slices), row)
            return predictor.classes(
                slices, rows, digest, consecutive=consecutive, on_slices=on_slices
            )

        return predict


def load_current(settings: Settings) -> Backbone:
    """The current backbone, read and checked.

    Raises
    ------
    models.backbone.BrokenBackboneError
    """
    return load_backbone(settings.backbone_dir or SHIPPED)


def checked_state(version: DomainState, spec: BackboneSpec | None, read: ReadState) -> State:
    """The tensors of a stored state.

    Parameters
    ----------
    spec : conventions of the backbone that it belongs to; None: not there, so
        that only the hash is compared

    Raises
    ------
    StateError
        If its bytes are not what the row says, or do not fit the backbone.
    """
    data = read(version.sha256)
    try:
        state = State.from_bytes(data, backbone=version.backbone, sha256=version.sha256)
        if spec is not None:
            state.check(spec, version.backbone)
    except BrokenStateError as error:
        raise StateError(f"State {version.ref} is refused: {error}.") from error
    return state


def other_backbone(version: DomainState, current: str) -> ConflictError:
    """What is said of a state whose backbone cannot be served.

    Parameters
    ----------
    current : sha256 of the current backbone
    """
    return ConflictError(
        f"{version.ref} belongs to a backbone that is not on the shelf.",
        code="other_backbone",
        facts={"backbone": current},
    )

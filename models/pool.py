"""Every backbone that is served: the current one, and older ones when they are needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import torch
from safetensors import SafetensorError

from models.backbone import (
    SHIPPED_OLDER,
    Backbone,
    BrokenBackboneError,
    load_backbone,
    read_label,
)
from models.backends import AUTO
from models.predict import PRECISIONS, Predictor, choose_device
from models.spec import BackboneSpec

log = logging.getLogger(__name__)

_UNREADABLE = (OSError, SafetensorError, LookupError, RuntimeError, TypeError, ValueError)
"""What reading a backbone's file may raise, whatever is wrong with it."""


class UnknownBackboneError(LookupError):
    """No backbone of this name can be served."""


@dataclass(frozen=True, slots=True)
class StateSlot:
    """Where a state lies on the device.

    Attributes
    ----------
    backbone : sha256 of the one it belongs to
    row : position in that backbone's bank
    """

    backbone: str
    row: int


class BackbonePool:
    """The current backbone, ready, beside older ones that are known by name.

    Of an older one only the metadata is read at first; its tensors are read,
    checked and kept when a state needs them. One that cannot be read stops
    nobody: it is taken out of the pool, and the log says so.

    Parameters
    ----------
    current : read and checked
    older : folders of backbones; those named like the current one are left out
    make : puts a backbone on the device
    """

    def __init__(
        self, current: Backbone, older: Iterable[Path], make: Callable[[Backbone], Predictor]
    ) -> None:
        self._make = make
        self._current = current.sha256
        self._predictors = {current.sha256: make(current)}
        self._specs = {current.sha256: current.spec}
        self._folders: dict[str, Path] = {}
        self._loading = Lock()
        for folder in older:
            self._index(folder)

    @property
    def current(self) -> Predictor:
        return self._predictors[self._current]

    @property
    def loaded(self) -> Mapping[str, Predictor]:
        """Every backbone on the device by its sha256, the current one first."""
        return dict(self._predictors)

    def spec(self, sha256: str) -> BackboneSpec | None:
        """Conventions of a backbone, loaded or not; None where it is not in the pool."""
        return self._specs.get(sha256)

    def predictor(self, sha256: str) -> Predictor:
        """A backbone on the device, loaded at first use.

        Raises
        ------
        UnknownBackboneError
            If there is none of this name, or its file is not what it says.
        """
        ready = self._predictors.get(sha256)
        if ready is not None:
            return ready
        with self._loading:
            if sha256 not in self._predictors:
                self._predictors[sha256] = self._make(self._read(sha256))
            return self._predictors[sha256]

    @classmethod
    def open(
        cls,
        current: Backbone,
        older: Iterable[Path] | None,
        *,
        device: str = AUTO,
        precision: str = AUTO,
        batch_slices: int = 0,
        backend: str = AUTO,
    ) -> BackbonePool:
        """A pool on a device, by an operator's words.

        Parameters
        ----------
        older : None: the shipped ones
        device : see `choose_device`
        precision : one of `models.predict.PRECISIONS`, or `auto`: the fastest here
        batch_slices, backend : see `Predictor`; what computes the current
            backbone computes the older ones too, where they can be computed so

        Raises
        ------
        models.backends.BackendError
        """
        place = choose_device(device)
        chosen, dtype = backend, PRECISIONS.get(precision)

        def put(backbone: Backbone) -> Predictor:
            nonlocal chosen, dtype
            unknown = dtype == torch.int8 and backbone.ranges is None
            predictor = Predictor(
                backbone,
                device=place,
                precision=None if unknown else dtype,
                batch_slices=batch_slices,
                backend=chosen,
            )
            if backbone.sha256 == current.sha256:
                chosen, dtype = predictor.selection.backend.name, predictor.precision
            return predictor

        return cls(current, SHIPPED_OLDER if older is None else older, put)

    def _index(self, folder: Path) -> None:
        try:
            sha256, spec = read_label(folder)
        except _UNREADABLE as error:
            _alarm(folder, error)
            return
        if sha256 not in self._specs:
            self._folders[sha256], self._specs[sha256] = folder, spec

    def _read(self, sha256: str) -> Backbone:
        folder = self._folders.get(sha256)
        if folder is None:
            raise UnknownBackboneError("the backbone is not in the pool")
        try:
            backbone = load_backbone(folder)
            if backbone.sha256 != sha256:
                raise BrokenBackboneError("the folder holds another backbone by now")
            return backbone
        except _UNREADABLE as error:
            _alarm(folder, error)
            del self._folders[sha256], self._specs[sha256]
            raise UnknownBackboneError("the backbone cannot be read") from error


def _alarm(folder: Path, error: Exception) -> None:
    facts = {"folder": str(folder), "error": f"{type(error).__name__}: {error}"}
    log.error("ALARM: an older backbone cannot be used", extra=facts)

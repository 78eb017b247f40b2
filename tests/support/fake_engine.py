"""An engine without a network: everything brighter than the mean is hippocampus."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from app.engine.status import EngineStatus, OlderBackbone
from models.pool import StateSlot
from models.spec import BackboneSpec
from normbank.cancellation import Cancellation
from normbank.config import Settings
from normbank.entities import DomainState
from normbank.errors import BusyError
from normbank.imaging.brain import SlicePredictor
from normbank.imaging.scan import Scan
from pipeline.networks import ReadState, checked_state
from pipeline.segment import SegmentedScan

SPEC = BackboneSpec("drawn", ("background", "hippocampus"), down=(2, 2), up=(2,))
BACKBONE = "b" * 64


class FakeEngine:
    """Answers at once, or when `gate` is set; keeps states as the real one does."""

    spec = SPEC
    backbone_sha256 = BACKBONE

    def __init__(self, settings: Settings) -> None:
        self.places = settings.queue_scans + 1  # one is at work, the others wait
        self.waiting = 0
        self.ready = False
        self.failed = False
        self.bank: list[str] = []
        self._door = threading.Lock()
        self.gate = threading.Event()
        self.gate.set()

    def start(self) -> None:
        self.ready = True

    def stop(self) -> None:
        self.gate.set()

    def describe(self) -> EngineStatus:
        return EngineStatus("none", "float32", "none", {}, {}, 1, 1, len(self.bank), 0, "none")

    def prepare(self, slot: StateSlot) -> None:
        pass

    def spec_of(self, backbone: str) -> BackboneSpec | None:
        return SPEC if backbone == BACKBONE else None

    def older(self) -> list[OlderBackbone]:
        return []

    def check_room(self) -> None:
        if not self.ready:
            raise BusyError("The engine is starting.", retry_after_s=5, code="starting")
        if self.waiting >= self.places:
            raise BusyError("The queue is full.", retry_after_s=7, code="queue_full")

    @contextmanager
    def admit(self) -> Iterator[None]:
        with self._door:
            self.check_room()
            self.waiting += 1
        try:
            yield
        finally:
            with self._door:
                self.waiting -= 1

    def network(self, slot: StateSlot) -> SlicePredictor:
        raise AssertionError("nobody asks a network whose answers are not judged")

    def ensure(self, state: DomainState, read: ReadState) -> StateSlot:
        if state.sha256 not in self.bank:
            checked_state(state, SPEC, read)
            self.bank.append(state.sha256)
        return StateSlot(BACKBONE, self.bank.index(state.sha256))

    def segment(
        self,
        scan: Scan,
        slot: StateSlot,
        *,
        certify: bool = False,
        look_around: bool = True,
        cancellation: Cancellation | None = None,
    ) -> SegmentedScan:
        while not self.gate.wait(0.01):
            if cancellation is not None:
                cancellation.check()
        ids = np.where(scan.data > scan.data.mean(), 17, 0).astype(np.int16)
        volumes = {"left-hippocampus": float(np.count_nonzero(ids) * np.prod(scan.spacing_mm))}
        return SegmentedScan(ids, volumes, {"missing": []}, {"network": 0.01}, scan.flags)

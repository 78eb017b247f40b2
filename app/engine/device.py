"""What segments, as the rest of the application sees it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from app.engine.status import EngineStatus, OlderBackbone
from models.pool import StateSlot
from models.spec import BackboneSpec
from normbank.cancellation import Cancellation
from normbank.entities import DomainState
from normbank.imaging.brain import SlicePredictor
from normbank.imaging.scan import Scan
from pipeline.networks import ReadState
from pipeline.segment import SegmentedScan


class Device(Protocol):
    """What the application needs of `app.engine.engine.Engine`, which says more of each."""

    @property
    def ready(self) -> bool: ...

    @property
    def failed(self) -> bool: ...

    @property
    def spec(self) -> BackboneSpec: ...

    @property
    def backbone_sha256(self) -> str: ...

    @property
    def waiting(self) -> int: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def describe(self) -> EngineStatus: ...

    def spec_of(self, backbone: str) -> BackboneSpec | None: ...

    def older(self) -> Sequence[OlderBackbone]: ...

    def check_room(self) -> None: ...

    def admit(self) -> AbstractContextManager[None]: ...

    def ensure(self, state: DomainState, read: ReadState) -> StateSlot: ...

    def prepare(self, slot: StateSlot) -> None: ...

    def network(self, slot: StateSlot) -> SlicePredictor: ...

    def segment(
        self,
        scan: Scan,
        slot: StateSlot,
        *,
        certify: bool = False,
        look_around: bool = True,
        cancellation: Cancellation | None = None,
    ) -> SegmentedScan: ...

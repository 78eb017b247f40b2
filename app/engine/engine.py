"""One owner of the device: requests queue up, their slices share batches."""

from __future__ import annotations

import hashlib
import math
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from app.engine.scheduler import BatchItem, BatchScheduler
from app.engine.status import EngineStatus, OlderBackbone
from models.backbone import Backbone
from models.backends import precision_name
from models.decoder import SliceDecoder
from models.pool import StateSlot
from models.predict import Predictor
from models.spec import BackboneSpec
from normbank.cancellation import Cancellation
from normbank.config import Settings
from normbank.entities import DomainState
from normbank.errors import AbandonedError, BusyError
from normbank.imaging.brain import SlicePredictor
from normbank.imaging.scan import Scan
from pipeline.networks import Networks, ReadState, load_current
from pipeline.segment import SegmentedScan, computed_by, segment_scan

_FIRST_GUESS_S = 3.0  # from one answer to the next, until some were timed
_SMOOTHING = 0.2
_LONGEST_RETRY_S = 60
_PREPARING_NICE = 5


class Engine:
    """The backbones, their banks and their device, for any number of callers.

    Callers prepare their scans in their own threads; what a network shall
    see of them goes through one `BatchScheduler`.

    Parameters
    ----------
    settings : backbones, device, precision, threads, batch and queue length
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._backbone: Backbone | None = None
        self._networks: Networks | None = None
        self._scheduler: BatchScheduler | None = None
        self._door = threading.Lock()
        self._stopped = False
        self._builder = ThreadPoolExecutor(1, "builder")
        self._admitted = 0
        self._working = 0
        self._turn_s = _FIRST_GUESS_S  # from one answer to the next while scans wait
        self._warm = False

    @property
    def ready(self) -> bool:
        """Whether the current backbone is loaded, checked and warmed up."""
        return self._warm

    @property
    def failed(self) -> bool:
        """Whether the device's thread has ended without being asked to."""
        return self._scheduler is not None and self._scheduler.failed

    @property
    def spec(self) -> BackboneSpec:
        """The current backbone's conventions."""
        return self._opened().spec

    @property
    def backbone_sha256(self) -> str:
        """Content hash of the current backbone, computed from the loaded tensors."""
        assert self._backbone is not None, "the engine has not been started"
        return self._backbone.sha256

    def spec_of(self, backbone: str) -> BackboneSpec | None:
        """The conventions of any backbone that can be served; None for others."""
        return self._opened().pool.spec(backbone)

    @property
    def waiting(self) -> int:
        """Scans admitted and not yet answered."""
        return self._admitted

    def start(self) -> None:
        """Load and check the current backbone, warm up, and take work. Blocks until warm.

        Raises
        ------
        models.backbone.BrokenBackboneError
        """
        self._backbone = load_current(self._settings)
        self._networks = Networks.open(self._settings, self._backbone)
        with self._door:
            if self._stopped:  # while the backbone was being read
                return
            self._scheduler = BatchScheduler()
        self._builder.submit(lambda: None).result()  # its thread has a priority of its own
        self._warm = True

    def stop(self) -> None:
        """End the device's thread; work that still waits is given up."""
        with self._door:
            self._warm, self._stopped = False, True
        if self._scheduler is not None:
            self._scheduler.stop()
        self._builder.shutdown()

    def describe(self) -> EngineStatus:
        """Where and how the networks run."""
        pool = self._opened().pool
        predictor = pool.current
        return EngineStatus(
            device=str(predictor.device),
            precision=precision_name(predictor.precision),
            backend=predictor.backend,
            ms_per_slice=dict(predictor.selection.ms_per_slice),
            backends_refused=dict(predictor.selection.refused),
            batch_slices=predictor.batch_slices,
            threads=torch.get_num_threads(),
            domains_in_bank=sum(len(loaded.bank) for loaded in pool.loaded.values()),
            bytes_per_domain=predictor.bank.bytes_per_domain,
            torch=torch.__version__,
        )

    def older(self) -> list[OlderBackbone]:
        """The older backbones that are loaded."""
        return [
            OlderBackbone(sha256, predictor.spec.name, len(predictor.bank))
            for sha256, predictor in self._opened().pool.loaded.items()
            if sha256 != self.backbone_sha256
        ]

    def check_room(self) -> None:
        """Refuse now whom `admit` would refuse, without taking a place.

        Raises
        ------
        BusyError
            When every place is taken, or the engine is not warm yet.
        """
        if not self._warm:
            raise BusyError("The engine is starting.", retry_after_s=5, code="starting")
        if self._admitted > self._settings.queue_scans:
            wait_s = min(max(1, math.ceil(self._turn_s)), _LONGEST_RETRY_S)
            raise BusyError("The queue is full.", retry_after_s=wait_s, code="queue_full")

    @contextmanager
    def admit(self) -> Iterator[None]:
        """A place for one scan that lies there whole, until its answer.

        Raises
        ------
        BusyError
            As `check_room`.
        """
        with self._door:
            self.check_room()
            self._admitted += 1
        try:
            yield
        finally:
            with self._door:
                self._admitted -= 1

    def ensure(self, state: DomainState, read: ReadState) -> StateSlot:
        """Where a state lies; it and its backbone are loaded and checked on first use.

        Parameters
        ----------
        state : names the tensors by hash
        read : bytes of a state by its sha256

        Raises
        ------
        ConflictError
            `other_backbone`, if its backbone cannot be served.
        StateError
            If its bytes are not what the row says, or do not fit its backbone.
        """
        return self._opened().place(state, read)

    def prepare(self, slot: StateSlot) -> None:
        """Build now what the first scan of a state with adapters would wait for."""
        self._opened().pool.predictor(slot.backbone).prepare(slot.row)

    def segment(
        self,
        scan: Scan,
        slot: StateSlot,
        *,
        certify: bool = False,
        look_around: bool = True,
        cancellation: Cancellation | None = None,
    ) -> SegmentedScan:
        """Segment one scan; blocks until the device has answered.

        Parameters
        ----------
        scan : any orientation and spacing
        slot : from `ensure`; its backbone's conventions hold for the scan
        certify : add `logits_sha256` to the quality: the sha256 of every score
            the network gave for this scan, equal only when every bit is
        look_around : see `segment_scan`
        cancellation : ends the work when nobody waits for it any more

        Raises
        ------
        EmptyScanError
            If no brain is found.
        BusyError
            If the engine is being stopped.
        AbandonedError
            If it was cancelled.
        """
        cancellation = cancellation or Cancellation()
        cancellation.check()
        with self._at_work(counted=look_around):
            return self._segment(scan, slot, certify, look_around, cancellation)

    def _segment(
        self,
        scan: Scan,
        slot: StateSlot,
        certify: bool,
        look_around: bool,
        cancellation: Cancellation,
    ) -> SegmentedScan:
        _yield_to_device()
        digest = hashlib.sha256() if certify else None
        predictor = self._opened().pool.predictor(slot.backbone)
        predict = self._predict_with(slot, predictor, digest, cancellation)
        segmented_scan = segment_scan(scan, predict, predictor.spec, look_around=look_around)
        cancellation.check()
        return computed_by(
            segmented_scan, predictor.backend, None if digest is None else digest.hexdigest()
        )

    def network(self, slot: StateSlot) -> SlicePredictor:
        """The network with a state, as a function of slices; it takes turns as scans do."""
        predictor = self._opened().pool.predictor(slot.backbone)
        return self._predict_with(slot, predictor, None, Cancellation())

    def _predict_with(
        self, slot: StateSlot, predictor: Predictor, digest: Any, cancellation: Cancellation
    ) -> SlicePredictor:
        prepared = self._prepared(slot)
        alone = not predictor.shares_batches(slot.row)

        def predict(
            slices: npt.NDArray[np.float32], *, consecutive: bool = False
        ) -> npt.NDArray[np.uint8]:
            prepared.result()  # the device's thread shall not wait for it
            cancellation.check()
            decoder = SliceDecoder.of(predictor.spec, slices, consecutive=consecutive)
            item = BatchItem(decoder, predictor, slot.row, digest, alone)
            return self._classes(item, cancellation)

        return predict

    def _classes(self, item: BatchItem, cancellation: Cancellation) -> npt.NDArray[np.uint8]:
        """The device's answer, or AbandonedError as soon as nobody waits for it."""
        scheduler = self._scheduler
        assert scheduler is not None, "the engine has not been started"
        with cancellation.calling(lambda: scheduler.give_up([item], AbandonedError())):
            return scheduler.classes(item)

    def _prepared(self, slot: StateSlot) -> Future[None]:
        try:
            return self._builder.submit(self.prepare, slot)
        except RuntimeError as error:  # it was shut down meanwhile
            raise BusyError.stopping() from error

    @contextmanager
    def _at_work(self, *, counted: bool) -> Iterator[None]:
        """Time a scan, and how many are worked on beside it.

        Parameters
        ----------
        counted : it is a client's scan, and no look at a labelled one
        """
        if not counted:
            yield
            return
        started = monotonic()
        with self._door:
            self._working += 1
            working = self._working
        try:
            yield
            self._count_turn(monotonic() - started, working)
        finally:
            with self._door:
                self._working -= 1

    def _count_turn(self, took_s: float, working: int) -> None:
        """Little's law: so many scans at work, so long each, one answer every so many seconds."""
        self._turn_s += _SMOOTHING * (took_s / working - self._turn_s)

    def _opened(self) -> Networks:
        assert self._networks is not None, "the engine has not been started"
        return self._networks


def _yield_to_device() -> None:
    """Let the thread that prepares a scan wait for those that run the network, for good.

    All threads of the network end a layer together: one that has lost its
    processor for a moment holds up the others, and without this four scans at
    once take as long as four in turn.
    """
    if sys.platform != "linux":  # elsewhere threads have no priorities of their own
        return
    thread = threading.get_native_id()
    if os.getpriority(os.PRIO_PROCESS, thread) < _PREPARING_NICE:
        os.setpriority(os.PRIO_PROCESS, thread, _PREPARING_NICE)

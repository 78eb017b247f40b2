"""One owner of the device: requests queue up, their slices share batches."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.backbone import SHIPPED, Backbone, load_backbone
from models.predict import Predictor, choose_device, choose_precision
from models.spec import BackboneSpec
from models.state import BrokenStateError, State
from normbank.config import Settings
from normbank.entities import DomainState
from normbank.errors import BusyError, StateError
from normbank.imaging.scan import Scan
from normbank.services.segmentation import SegmentedScan, segment_scan

log = logging.getLogger(__name__)

_FIRST_GUESS_S = 15.0  # of one scan, until some were timed
_SMOOTHING = 0.2


@dataclass(eq=False)
class Work:
    """Slices of one request, on their way through the device.

    Attributes
    ----------
    slices : N H W
    domain : position in the bank
    answer : N H W, filled batch by batch
    digest : takes the logits' bytes in slice order; None: not wanted
    """

    slices: npt.NDArray[np.float32]
    domain: int
    answer: npt.NDArray[np.uint8]
    digest: Any = None
    sent: int = 0
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None

    @property
    def left(self) -> int:
        return len(self.slices) - self.sent


class Engine:
    """The backbone, its bank and its device, for any number of callers.

    Callers prepare their scans in their own threads; one thread feeds the
    device with batches of a fixed shape, filled with whatever slices wait,
    of any domains.

    Parameters
    ----------
    settings : device, precision, threads, batch and queue length
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._backbone: Backbone | None = None
        self._predictor: Predictor | None = None
        self._waiting: deque[Work] = deque()
        self._changed = threading.Condition()
        self._bank_lock = threading.Lock()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._admitted = 0
        self._scan_s = _FIRST_GUESS_S
        self._warm = False

    @property
    def ready(self) -> bool:
        """Whether the backbone is loaded, checked and warmed up."""
        return self._warm

    @property
    def failed(self) -> bool:
        """Whether the device's thread has ended without being asked to."""
        return self._thread is not None and not self._thread.is_alive() and not self._stopping

    @property
    def spec(self) -> BackboneSpec:
        return self._loaded().spec

    @property
    def backbone_sha256(self) -> str:
        """Content hash of the backbone, computed from the loaded tensors."""
        assert self._backbone is not None, "the engine has not been started"
        return self._backbone.sha256

    @property
    def waiting(self) -> int:
        """Scans admitted and not yet answered."""
        return self._admitted

    def start(self) -> None:
        """Load and check the backbone, warm up, and take work. Blocks until warm.

        Raises
        ------
        models.backbone.BrokenBackboneError
        """
        threads = self._settings.threads or os.cpu_count() or 1
        torch.set_num_threads(threads)
        device = choose_device(self._settings.device)
        precision = choose_precision(self._settings.precision, device)
        self._backbone = load_backbone(self._settings.backbone_dir or SHIPPED)
        self._predictor = Predictor(
            self._backbone,
            device=device,
            precision=precision,
            batch_slices=self._settings.batch_slices,
        )
        self._thread = threading.Thread(target=self._feed, name="device", daemon=True)
        self._thread.start()
        # An all-zero batch through an empty row compiles every kernel.
        blank = np.zeros((1, *self.spec.slice_shape), np.float32)
        self._run(Work(blank, 0, np.zeros(blank.shape, np.uint8)))
        self._warm = True

    def stop(self) -> None:
        """End the device's thread; work that still waits is given up."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._warm = False

    def describe(self) -> dict[str, Any]:
        """Where and how the network runs, for `/readyz` and the logs."""
        predictor = self._loaded()
        return {
            "device": str(predictor.device),
            "precision": str(predictor.precision).removeprefix("torch."),
            "batch_slices": predictor.batch_slices,
            "threads": torch.get_num_threads(),
            "domains_in_bank": len(predictor.bank),
            "bytes_per_domain": predictor.bank.bytes_per_domain,
            "torch": torch.__version__,
        }

    @contextmanager
    def admit(self) -> Iterator[None]:
        """A place for one scan, from before its upload until its answer.

        Raises
        ------
        BusyError
            When every place is taken, or the engine is not warm yet.
        """
        with self._changed:
            if not self._warm:
                raise BusyError("The engine is starting.", retry_after_s=5, code="starting")
            if self._admitted > self._settings.queue_scans:
                wait_s = max(1, round(self._scan_s * self._admitted))
                raise BusyError("The queue is full.", retry_after_s=wait_s, code="queue_full")
            self._admitted += 1
        try:
            yield
        finally:
            with self._changed:
                self._admitted -= 1

    def ensure(self, state: DomainState, read: Callable[[str], bytes]) -> int:
        """Position of a state in the bank; loaded and checked on first use.

        Parameters
        ----------
        state : names the tensors by hash
        read : bytes of a state by its sha256

        Raises
        ------
        StateError
            If its bytes are not what the row says, or fit another backbone.
        """
        bank = self._loaded().bank
        if state.sha256 in bank:
            return bank.index(state.sha256)
        data = read(state.sha256)
        try:
            loaded = State.from_bytes(data, backbone=state.backbone, sha256=state.sha256)
            with self._bank_lock:
                return bank.add(loaded)
        except BrokenStateError as error:
            raise StateError(f"State {state.ref} is refused: {error}.") from error

    def segment(self, scan: Scan, state_index: int, *, certify: bool = False) -> SegmentedScan:
        """Segment one scan; blocks until the device has answered.

        Parameters
        ----------
        scan : any orientation and spacing
        state_index : from `ensure`
        certify : add `logits_sha256` to the quality: the sha256 of every score
            the network gave for this scan, equal only when every bit is

        Raises
        ------
        EmptyScanError
            If no brain is found.
        BusyError
            If the engine is being stopped.
        """
        digest = hashlib.sha256() if certify else None
        started = monotonic()

        def predict(slices: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
            answer = np.zeros(slices.shape, np.uint8)
            if len(slices):
                self._run(Work(slices, state_index, answer, digest))
            return answer

        found = segment_scan(scan, predict, self.spec)
        self._scan_s += _SMOOTHING * (monotonic() - started - self._scan_s)
        if digest is None:
            return found
        quality: Mapping[str, Any] = {**found.quality, "logits_sha256": digest.hexdigest()}
        return replace(found, quality=quality)

    def _loaded(self) -> Predictor:
        assert self._predictor is not None, "the engine has not been started"
        return self._predictor

    def _run(self, work: Work) -> None:
        """Queue slices and wait for them."""
        with self._changed:
            if self._stopping:
                raise BusyError("The service is stopping.", retry_after_s=5, code="stopping")
            self._waiting.append(work)
            self._changed.notify_all()
        work.done.wait()
        if work.error is not None:
            raise work.error

    def _feed(self) -> None:
        """The device's thread: one batch after another until stopped."""
        while (parts := self._next_batch()) is not None:
            try:
                self._compute(parts)
            except Exception as error:
                # Whatever went wrong (memory, driver), the callers must be told
                # and the next requests deserve another try.
                log.exception("a batch failed")
                self._give_up([work for work, _ in parts], error)
        with self._changed:
            left = list(self._waiting)
        stopping = BusyError("The service is stopping.", retry_after_s=5, code="stopping")
        self._give_up(left, stopping)

    def _next_batch(self) -> list[tuple[Work, range]] | None:
        """Slices of the oldest requests, up to one batch; None when stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._waiting)
            if self._stopping:
                return None
            room = self._loaded().batch_slices
            parts = []
            while self._waiting and room:
                work = self._waiting[0]
                count = min(room, work.left)
                parts.append((work, range(work.sent, work.sent + count)))
                work.sent += count
                room -= count
                if not work.left:
                    self._waiting.popleft()
            return parts

    def _compute(self, parts: list[tuple[Work, range]]) -> None:
        """One forward pass, its answers handed back to their requests."""
        predictor = self._loaded()
        slices = np.concatenate([work.slices[r.start : r.stop] for work, r in parts])
        domains = np.repeat([work.domain for work, _ in parts], [len(r) for _, r in parts])
        logits = predictor.logits(slices, domains)
        classes = logits.argmax(1).to("cpu", torch.uint8).numpy()
        start = 0
        for work, r in parts:
            end = start + len(r)
            work.answer[r.start : r.stop] = classes[start:end]
            if work.digest is not None:
                work.digest.update(logits[start:end].float().cpu().contiguous().numpy())
            start = end
            if r.stop == len(work.slices):
                work.done.set()

    def _give_up(self, works: list[Work], error: BaseException) -> None:
        with self._changed:
            for work in works:
                if work in self._waiting:
                    self._waiting.remove(work)
                work.error = error
                work.done.set()

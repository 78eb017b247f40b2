"""One thread feeds the device with batches of slices from whoever waits."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from models.decoder import SliceDecoder
from models.predict import Predictor, logits_bytes
from normbank.errors import BusyError

log = logging.getLogger(__name__)


@dataclass(eq=False)
class BatchItem:
    """Slices of one request, on their way through the device.

    Attributes
    ----------
    decoder : of N >= 1 slices; makes classes of their scores, batch by batch
    predictor : the backbone that shall see them
    domain : position in that backbone's bank
    digest : takes the logits' bytes in slice order; None: not wanted
    alone : its domain shares no batch with others
    """

    decoder: SliceDecoder
    predictor: Predictor
    domain: int
    digest: Any = None
    alone: bool = False
    sent: int = 0
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None

    @property
    def slices(self) -> npt.NDArray[np.float32]:
        """N H W, as the network shall see them."""
        return self.decoder.inputs

    def may_share(self, other: BatchItem) -> bool:
        """Whether one batch may hold slices of both."""
        if self.predictor is not other.predictor:
            return False
        if self.slices.shape[1:] != other.slices.shape[1:]:
            return False
        return self.domain == other.domain or not (self.alone or other.alone)


class BatchScheduler:
    """The device's queue and its only user.

    Batches hold slices of one size and belong to one backbone: those of the
    oldest request. They are filled with whatever slices of the same kind wait,
    oldest request first, of any domains but those that share with nobody.
    Nothing but this scheduler's thread runs a predictor.
    """

    def __init__(self) -> None:
        self._waiting: deque[BatchItem] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> bool:
        """Whether the thread has ended without being asked to."""
        return not self._thread.is_alive() and not self._stopping

    def stop(self) -> None:
        """End the thread after its present batch; items that wait are given up."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def classes(self, item: BatchItem) -> npt.NDArray[np.uint8]:
        """Queue slices and wait for their classes, N H W.

        Raises
        ------
        BusyError
            `stopping`, when the service goes down.
        NormbankError
            What it was given up with.
        """
        with self._changed:
            if self._stopping:
                raise BusyError.stopping()
            if item.error is not None:
                raise item.error
            self._waiting.append(item)
            self._changed.notify_all()
        item.done.wait()
        if item.error is not None:
            raise item.error
        return item.decoder.classes

    def give_up(self, items: Sequence[BatchItem], error: BaseException) -> None:
        """Let items' callers have an error now; what waits of their slices is not computed."""
        with self._changed:
            for item in items:
                if item in self._waiting:
                    self._waiting.remove(item)
                item.error = error
                item.done.set()

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            try:
                self._compute(batch)
            except Exception as error:
                # Whatever went wrong (memory, driver), the callers must be told
                # and the next requests deserve another try.
                log.exception("a batch failed")
                self.give_up([item for item, _ in batch], error)
        self.give_up(list(self._waiting), BusyError.stopping())

    def _next_batch(self) -> list[tuple[BatchItem, slice]] | None:
        """Slices of the oldest requests of one backbone, up to one batch; None when stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._waiting)
            if self._stopping:
                return None
            oldest = self._waiting[0]
            room = oldest.predictor.batch_slices
            batch = []
            for item in [item for item in self._waiting if item.may_share(oldest)]:
                end = min(item.sent + room, len(item.slices))
                batch.append((item, slice(item.sent, end)))
                room -= end - item.sent
                item.sent = end
                if end == len(item.slices):
                    self._waiting.remove(item)
                if not room:
                    break
            return batch

    def _compute(self, batch: list[tuple[BatchItem, slice]]) -> None:
        """One forward pass, its answers handed back to their requests."""
        slices = np.concatenate([item.slices[span] for item, span in batch])
        counts = [span.stop - span.start for _, span in batch]
        domains = np.repeat([item.domain for item, _ in batch], counts)
        logits = batch[0][0].predictor.logits(slices, domains)
        ends = np.cumsum(counts)
        for (item, _), end, count in zip(batch, ends, counts, strict=True):
            mine = logits[end - count : end]
            item.decoder.add(mine)
            if item.digest is not None:
                item.digest.update(logits_bytes(mine))
        for item, _ in batch:  # only now: whatever fails above fails them all
            if item.decoder.done:
                item.done.set()

"""Cases in a fixed order, made by other processes while the network trains."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from models.cases import LabelledSlices

Make = Callable[[int], LabelledSlices]
"""number of a case -> the case; sent to other processes, so it must pickle."""


class CaseLoader:
    """The cases `first`, `first + 1`, … of `make`, in this order whoever makes them.

    Parameters
    ----------
    make : see `Make`
    ahead : cases made before they are asked for
    """

    def __init__(self, make: Make, workers: ProcessPoolExecutor, first: int, ahead: int) -> None:
        self._make, self._workers = make, workers
        self._next = first
        self._coming: deque[Future[LabelledSlices]] = deque()
        for _ in range(ahead):
            self._order()

    def take(self) -> LabelledSlices:
        """The next case; waits until it is made."""
        self._order()
        return self._coming.popleft().result()

    def _order(self) -> None:
        self._coming.append(self._workers.submit(_small, self._make, self._next))
        self._next += 1


@contextmanager
def open_loader(make: Make, *, first: int, workers: int, ahead: int) -> Iterator[CaseLoader]:
    """A loader with processes of its own, of low priority.

    Parameters
    ----------
    first : number of the first case
    workers : processes
    ahead : see `CaseLoader`
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_be_modest)
    try:
        yield CaseLoader(make, pool, first, ahead)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _be_modest() -> None:
    os.nice(5)


def _small(make: Make, number: int) -> LabelledSlices:
    """Half precision is enough for an image, and halves what travels."""
    case = make(number)
    return replace(case, images=case.images.astype(np.float16))

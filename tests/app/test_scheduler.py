from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from app.engine.scheduler import BatchItem, BatchScheduler
from models.decoder import SliceDecoder
from normbank.cancellation import Cancellation
from normbank.errors import AbandonedError, BusyError
from tests.support.api import wait_until


class Doubler:
    """A predictor whose class is the pixel's value plus the domain, when let."""

    batch_slices = 4

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()
        self.broken = False

    def logits(self, slices: np.ndarray, domains: np.ndarray) -> torch.Tensor:
        assert self.go.wait(10)
        self.batches.append(list(domains))
        if self.broken:
            raise RuntimeError("out of memory")
        classes = torch.from_numpy(slices[:, :1, :1].astype(np.int64))
        classes = classes + torch.from_numpy(domains)[:, None, None]
        return torch.nn.functional.one_hot(classes, 32).permute(0, 3, 1, 2).float()


@pytest.fixture
def predictor() -> Doubler:
    return Doubler()


@pytest.fixture
def scheduler(predictor: Doubler) -> Iterator[BatchScheduler]:
    opened = BatchScheduler()
    yield opened
    predictor.go.set()
    opened.stop()


def work_of(
    predictor: Doubler, values: list[int], domain: int, digest: Any = None, *, reach: int = 0
) -> BatchItem:
    slices = np.array(values, np.float32)[:, None, None].repeat(2, 1).repeat(2, 2)
    return BatchItem(SliceDecoder(slices, reach), predictor, domain, digest)  # type: ignore[arg-type]


def test_work_that_stands_alone_shares_no_batch() -> None:
    predictor = Doubler()
    plain, other = work_of(predictor, [1], 0), work_of(predictor, [1], 1)
    alone, again = work_of(predictor, [1], 2), work_of(predictor, [1], 2)
    alone.alone = again.alone = True
    assert plain.may_share(other)
    assert alone.may_share(again)
    assert not alone.may_share(plain)
    assert not plain.may_share(alone)
    assert not plain.may_share(work_of(Doubler(), [1], 0))
    wider = BatchItem(SliceDecoder(np.zeros((1, 2, 3), np.float32)), predictor, 0)  # type: ignore[arg-type]
    assert not plain.may_share(wider)


def in_background(
    scheduler: BatchScheduler, works: list[BatchItem], predictor: Doubler
) -> list[Any]:
    """Queue works while the device is held, so that they share batches."""
    predictor.go.clear()
    results: list[Any] = [None] * len(works)

    def ask(number: int) -> None:
        try:
            results[number] = scheduler.classes(works[number])
        except Exception as error:
            results[number] = error

    def queued(work: BatchItem) -> bool:
        with scheduler._changed:
            return work.sent > 0 or work in scheduler._waiting

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(works))]
    for work, thread in zip(works, threads, strict=True):
        thread.start()
        wait_until(partial(queued, work))
    predictor.go.set()
    for thread in threads:
        thread.join(10)
    return results


def test_requests_of_several_domains_share_batches_and_get_their_own_answers(
    scheduler: BatchScheduler, predictor: Doubler
) -> None:
    works = [
        work_of(predictor, [1, 2, 3, 4, 5], 10),
        work_of(predictor, [6, 7], 20),
        work_of(predictor, [8], 0),
    ]
    answers = in_background(scheduler, works, predictor)
    assert [list(a[:, 0, 0]) for a in answers] == [[11, 12, 13, 14, 15], [26, 27], [8]]
    assert any(len(set(batch)) > 1 for batch in predictor.batches)
    assert all(len(batch) <= 4 for batch in predictor.batches)


def test_neighbours_are_those_of_the_same_request(
    scheduler: BatchScheduler, predictor: Doubler
) -> None:
    """Requests meet in one batch; an odd slice between two others is outvoted by its own."""
    works = [
        work_of(predictor, [1, 1, 2, 1, 1, 3], 0, reach=2),
        work_of(predictor, [5, 6, 5, 5, 5], 0, reach=2),
    ]
    answers = in_background(scheduler, works, predictor)
    assert [list(a[:, 0, 0]) for a in answers] == [[1, 1, 1, 1, 1, 3], [5, 5, 5, 5, 5]]
    assert predictor.batches == [[0] * 4, [0] * 4, [0] * 3]


def test_a_batch_that_fails_fails_its_requests_and_no_others(
    scheduler: BatchScheduler, predictor: Doubler
) -> None:
    predictor.broken = True
    failed = in_background(
        scheduler, [work_of(predictor, [1], 1), work_of(predictor, [2], 2)], predictor
    )
    assert all(isinstance(error, RuntimeError) for error in failed)
    predictor.broken = False
    assert scheduler.classes(work_of(predictor, [3], 1))[0, 0, 0] == 4
    assert not scheduler.failed


def test_work_that_waits_when_the_service_stops_is_given_up(predictor: Doubler) -> None:
    scheduler = BatchScheduler()
    predictor.go.clear()
    errors: list[BaseException] = []

    def ask(value: int) -> None:
        try:
            scheduler.classes(work_of(predictor, [value] * 8, 1))
        except BusyError as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    stopper = threading.Thread(target=scheduler.stop)
    stopper.start()
    predictor.go.set()
    for thread in (*threads, stopper):
        thread.join(10)
        assert not thread.is_alive()
    assert {error.code for error in errors} == {"stopping"}  # type: ignore[attr-defined]
    with pytest.raises(BusyError):
        scheduler.classes(work_of(predictor, [1], 1))


def test_a_certificate_is_the_same_alone_and_in_company(
    scheduler: BatchScheduler, predictor: Doubler
) -> None:
    def hashed(*others: BatchItem) -> str:
        digest = hashlib.sha256()
        in_background(
            scheduler, [*others, work_of(predictor, [4, 5, 6, 7, 8], 3, digest)], predictor
        )
        return digest.hexdigest()

    assert hashed() == hashed(work_of(predictor, [1, 2, 3], 9), work_of(predictor, [9], 2))


def test_a_batch_belongs_to_one_backbone_and_no_request_is_passed_over(
    scheduler: BatchScheduler, predictor: Doubler
) -> None:
    older = Doubler()
    works = [
        work_of(predictor, [1, 2, 3, 4, 5], 10),
        work_of(older, [6, 7, 8], 0),
        work_of(predictor, [9], 20),
        work_of(older, [10, 11, 12], 1),
    ]
    answers = in_background(scheduler, works, predictor)
    assert [list(a[:, 0, 0]) for a in answers] == [
        [11, 12, 13, 14, 15],
        [6, 7, 8],
        [29],
        [11, 12, 13],
    ]
    assert predictor.batches == [[10, 10, 10, 10], [10, 20]]
    assert older.batches == [[0, 0, 0, 1], [1, 1]]


def test_work_that_nobody_waits_for_leaves_the_queue_at_once(
    scheduler: BatchScheduler, predictor: Doubler
) -> None:
    predictor.go.clear()
    running, waiting = work_of(predictor, [1] * 8, 0), work_of(predictor, [2] * 8, 1)
    other, errors = work_of(predictor, [3], 2), []

    def ask(item: BatchItem) -> None:
        try:
            scheduler.classes(item)
        except AbandonedError as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(item,)) for item in (running, waiting)]
    threads[0].start()
    wait_until(lambda: running.sent == 4)
    threads[1].start()
    wait_until(lambda: waiting in scheduler._waiting)
    for item in (running, waiting):
        scheduler.give_up([item], AbandonedError())
    for thread in threads:
        thread.join(1)  # though the device is still at it
        assert not thread.is_alive()
    assert len(errors) == 2
    predictor.go.set()
    assert scheduler.classes(other)[0, 0, 0] == 5
    assert predictor.batches == [[0] * 4, [2]]
    with pytest.raises(AbandonedError):
        scheduler.classes(waiting)


def test_cancellation_is_heard_however_late_one_listens() -> None:
    cancellation, heard = Cancellation(), []
    with cancellation.calling(lambda: heard.append("before")):
        cancellation.check()
        cancellation.cancel()
    with cancellation.calling(lambda: heard.append("after")):
        pass
    cancellation.cancel()
    assert heard == ["before", "after"]
    with pytest.raises(AbandonedError):
        cancellation.check()

"""How a network does on every test scan: Dice, distances, and the answer's fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.kit.distances import distances_mm
from experiments.kit.simulation import processes
from models.bench import Bench
from models.cases import LabelledSlices
from models.state import State
from normbank.anatomy import EVALUATED, classes_of


@dataclass(frozen=True)
class ScanScore:
    """One test scan segmented by one network.

    Attributes
    ----------
    scan, anatomy : names
    dice : 3-D, in the order of `EVALUATED`; NaN where a structure is in neither
    hd95_mm : likewise; empty where not measured
    answer : sha256 of the answered classes
    """

    scan: str
    anatomy: str
    dice: tuple[float, ...]
    hd95_mm: tuple[float, ...]
    answer: str

    @property
    def mean(self) -> float:
        """Mean Dice over the structures that are there."""
        known = [value for value in self.dice if not np.isnan(value)]
        return float(np.mean(known)) if known else float("nan")

    def to_document(self) -> dict[str, Any]:
        return {**asdict(self), "dice": list(self.dice), "hd95_mm": list(self.hd95_mm)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ScanScore:
        dice, hd95_mm = tuple(document["dice"]), tuple(document["hd95_mm"])
        return cls(document["scan"], document["anatomy"], dice, hd95_mm, document["answer"])


@dataclass(frozen=True)
class TestScan:
    """A labelled scan with its names."""

    __test__ = False  # no test case, whatever pytest thinks of its name

    name: str
    anatomy: str
    case: LabelledSlices


class Judge:
    """Scores scans; distances are measured in processes of their own.

    Parameters
    ----------
    spacing_mm : isotropic
    pool : None: in this process
    """

    def __init__(self, spacing_mm: float, pool: Executor | None) -> None:
        self._spacing_mm = spacing_mm
        self._pool = pool

    def score(
        self, bench: Bench, state: State, scans: Sequence[TestScan], *, distances: bool
    ) -> list[ScanScore]:
        """Segment and compare every scan over all of its slices."""
        groups = [classes_of(name, bench.spec.classes) for name in EVALUATED]
        dice, answers, far = [], [], []
        for scan in scans:
            case = scan.case
            answer = bench.classes(state, case.images, consecutive=case.consecutive)
            dice.append(bench.compare(answer, case))
            answers.append(hashlib.sha256(answer.tobytes()).hexdigest())
            if distances:
                far.append(self._distances(answer, case.classes, groups))
        measured = [tuple(one.result()) for one in far] or [()] * len(scans)
        return [
            ScanScore(scan.name, scan.anatomy, tuple(map(float, d)), mm, answer)
            for scan, d, mm, answer in zip(scans, dice, measured, answers, strict=True)
        ]

    def _distances(
        self,
        answer: NDArray[np.uint8],
        reference: NDArray[np.uint8],
        groups: Sequence[Sequence[int]],
    ) -> Future[list[float]]:
        spacing = (self._spacing_mm,) * 3
        if self._pool is not None:
            return self._pool.submit(distances_mm, answer, reference, groups, spacing)
        done: Future[list[float]] = Future()
        done.set_result(distances_mm(answer, reference, groups, spacing))
        return done


@contextmanager
def judging(spacing_mm: float, workers: int) -> Iterator[Judge]:
    """A judge with processes; workers 0: without any."""
    if not workers:
        yield Judge(spacing_mm, None)
        return
    with processes(workers) as pool:
        yield Judge(spacing_mm, pool)

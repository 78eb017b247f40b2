"""Scores of a network on test scans: Dice, HD95 and the hash of its segmentation."""

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
from models.cases import LabelledSlices
from models.evaluator import Evaluator
from models.spec import BackboneSpec
from models.state import State
from normbank.anatomy import EVALUATED, classes_of
from normbank.imaging.brain import SlicePredictor
from pipeline.cases import LabelledScan
from pipeline.evaluate import answer_case, compare


@dataclass(frozen=True)
class ScanScore:
    """One test scan segmented by one network.

    Attributes
    ----------
    scan, anatomy : names
    dice : 3-D, in the order of `EVALUATED`; NaN where a structure is in neither
    hd95_mm : likewise; empty where not measured
    answer : sha256 of the predicted classes
    """

    scan: str
    anatomy: str
    dice: tuple[float, ...]
    hd95_mm: tuple[float, ...]
    answer: str

    @property
    def mean(self) -> float:
        """Mean Dice over the structures that are present."""
        present = [value for value in self.dice if not np.isnan(value)]
        return float(np.mean(present)) if present else float("nan")

    def to_document(self) -> dict[str, Any]:
        return {**asdict(self), "dice": list(self.dice), "hd95_mm": list(self.hd95_mm)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ScanScore:
        dice, hd95_mm = tuple(document["dice"]), tuple(document["hd95_mm"])
        return cls(document["scan"], document["anatomy"], dice, hd95_mm, document["answer"])


@dataclass(frozen=True)
class SimulatedScan:
    """A simulated scan's slices with its names."""

    name: str
    anatomy: str
    case: LabelledSlices


def score_as_served(case: LabelledScan, predictor: SlicePredictor, spec: BackboneSpec) -> ScanScore:
    """Segment a scan as the service does, and compare on the scan's own grid.

    Parameters
    ----------
    predictor : any network with a state; it also has to find the brain
    spec : conventions of that network, in whose classes the reference is
    """
    answer = answer_case(case, predictor, spec, spec.classes)
    agreed = compare(case, answer, EVALUATED, spec.classes)
    dice = tuple(_number(agreed[name].dice) for name in EVALUATED)
    hd95_mm = tuple(_number(agreed[name].hd95_mm) for name in EVALUATED)
    digest = hashlib.sha256(answer.tobytes()).hexdigest()
    return ScanScore(case.id, case.id, dice, hd95_mm, digest)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


class Scorer:
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
        self, evaluator: Evaluator, state: State, scans: Sequence[SimulatedScan], *, distances: bool
    ) -> list[ScanScore]:
        """Segment and compare every scan over all of its slices."""
        groups = [classes_of(name, evaluator.spec.classes) for name in EVALUATED]
        dice, hashes, futures = [], [], []
        for scan in scans:
            case = scan.case
            predicted = evaluator.classes(state, case.images, consecutive=case.consecutive)
            dice.append(tuple(map(float, evaluator.compare(predicted, case))))
            hashes.append(hashlib.sha256(predicted.tobytes()).hexdigest())
            if distances:
                futures.append(self._distances(predicted, case.classes, groups))
        hd95_mm = [tuple(future.result()) for future in futures] or [()] * len(scans)
        return [
            ScanScore(scan.name, scan.anatomy, *score)
            for scan, score in zip(scans, zip(dice, hd95_mm, hashes, strict=True), strict=True)
        ]

    def _distances(
        self,
        predicted: NDArray[np.uint8],
        reference: NDArray[np.uint8],
        groups: Sequence[Sequence[int]],
    ) -> Future[list[float]]:
        spacing = (self._spacing_mm,) * 3
        if self._pool is not None:
            return self._pool.submit(distances_mm, predicted, reference, groups, spacing)
        future: Future[list[float]] = Future()
        future.set_result(distances_mm(predicted, reference, groups, spacing))
        return future


@contextmanager
def open_scorer(spacing_mm: float, workers: int) -> Iterator[Scorer]:
    """A scorer with processes; workers 0: without any."""
    if not workers:
        yield Scorer(spacing_mm, None)
        return
    with processes(workers) as pool:
        yield Scorer(spacing_mm, pool)


def scores_document(scores: Sequence[ScanScore]) -> dict[str, Any]:
    """Scores as a stage stores them."""
    return {"scores": [score.to_document() for score in scores]}


def stored_scores(document: Mapping[str, Any]) -> list[ScanScore]:
    """Read what `scores_document` has written."""
    return [ScanScore.from_document(score) for score in document["scores"]]

"""Labelled cases in two halves: one to learn from, the other to judge by."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from models.cases import LabelledSlices
from models.evaluator import OnProgress
from models.state import State
from normbank.entities import Scores
from pipeline.cases import LabelledScan
from pipeline.evaluate import evaluate
from pipeline.networks import Networks


class CaseSplit(Protocol):
    """Labelled cases, one half to learn from (training), the other to judge by (validation)."""

    def outlined(self) -> Sequence[LabelledSlices]:
        """The training half, cropped before any state is known to fit."""

    def cropped(
        self, state: State, on_progress: OnProgress
    ) -> tuple[Sequence[LabelledSlices], Sequence[LabelledSlices]]:
        """Training and validation half, the brain found with a state."""

    def score(self, state: State) -> Scores:
        """How a state, of any backbone, answers the validation half."""


@dataclass(frozen=True)
class ScanSplit:
    """Scans on their own grids, answered just as the service would.

    Attributes
    ----------
    training : at least one; the first half of `all`, rounded up
    """

    networks: Networks
    training: Sequence[LabelledScan]
    validation: Sequence[LabelledScan]

    @classmethod
    def of(cls, networks: Networks, cases: Sequence[LabelledScan]) -> ScanSplit:
        half = (len(cases) + 1) // 2
        return cls(networks, cases[:half], cases[half:])

    @property
    def all(self) -> list[LabelledScan]:
        return [*self.training, *self.validation]

    def outlined(self) -> Sequence[LabelledSlices]:
        return [case.slices(None, self.networks.spec) for case in self.training]

    def cropped(
        self, state: State, on_progress: OnProgress
    ) -> tuple[Sequence[LabelledSlices], Sequence[LabelledSlices]]:
        predictor, slices = self.networks.predict_with(state), []
        for number, case in enumerate(self.all):
            on_progress(number / len(self.all), "finding the brain")
            slices.append(case.slices(predictor, self.networks.spec))
        return slices[: len(self.training)], slices[len(self.training) :]

    def score(self, state: State) -> Scores:
        spec = self.networks.pool.predictor(state.backbone).spec
        predictor = self.networks.predict_with(state)
        return evaluate(self.validation, predictor, spec, judge=self.networks.spec)

    def judged_by(self, learnt: Collection[str]) -> bool:
        """Whether any of these cases, by id, is in the validation half."""
        return not {case.id for case in self.validation}.isdisjoint(learnt)

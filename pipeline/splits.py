"""Labelled cases in two halves: one to learn from, the other to judge by."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from models.cases import SlicedCase, StoredSlices
from models.evaluator import OnProgress
from models.state import State
from normbank.entities import Scores
from normbank.imaging.brain import SlicePredictor
from pipeline.cases import LabelledCase
from pipeline.evaluate import evaluate
from pipeline.networks import Networks


class CaseSplit(Protocol):
    """Labelled cases, one half to learn from (training), the other to judge by (validation)."""

    def outlined(self) -> Sequence[SlicedCase]:
        """The training half, cropped before any state is known to fit."""

    def cropped(
        self, state: State, on_progress: OnProgress
    ) -> tuple[Sequence[SlicedCase], Sequence[SlicedCase]]:
        """Training and validation half, the brain found with a state."""

    def score(self, state: State) -> Scores:
        """How a state, of any backbone, answers the validation half."""


@dataclass(frozen=True)
class ScanSplit:
    """Scans on their own grids, answered just as the service would.

    Attributes
    ----------
    training : at least one; the first half of `all`, rounded up
    folder : for what a network sees of the cases; None: that stays in memory
    """

    networks: Networks
    training: Sequence[LabelledCase]
    validation: Sequence[LabelledCase]
    folder: Path | None = None

    @classmethod
    def of(
        cls, networks: Networks, cases: Sequence[LabelledCase], folder: Path | None = None
    ) -> ScanSplit:
        half = (len(cases) + 1) // 2
        return cls(networks, cases[:half], cases[half:], folder)

    @property
    def all(self) -> list[LabelledCase]:
        return [*self.training, *self.validation]

    def outlined(self) -> Sequence[SlicedCase]:
        return [self._slices(case, None, "outlined") for case in self.training]

    def _slices(self, case: LabelledCase, predictor: SlicePredictor | None, how: str) -> SlicedCase:
        slices = case.opened().slices(predictor, self.networks.spec)
        if self.folder is None:
            return slices
        return StoredSlices.of(slices, self.folder, f"{case.id}-{how}")

    def cropped(
        self, state: State, on_progress: OnProgress
    ) -> tuple[Sequence[SlicedCase], Sequence[SlicedCase]]:
        predictor, slices = self.networks.predict_with(state), list[SlicedCase]()
        for number, case in enumerate(self.all):
            on_progress(number / len(self.all), "finding the brain")
            slices.append(self._slices(case, predictor, "cropped"))
        return slices[: len(self.training)], slices[len(self.training) :]

    def score(self, state: State) -> Scores:
        spec = self.networks.pool.predictor(state.backbone).spec
        predictor = self.networks.predict_with(state)
        return evaluate(self.validation, predictor, spec, judge=self.networks.spec)

    def judged_by(self, learnt: Collection[str]) -> bool:
        """Whether any of these cases, by id, is in the validation half."""
        return not {case.id for case in self.validation}.isdisjoint(learnt)

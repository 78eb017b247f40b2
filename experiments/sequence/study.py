"""One scanner after another: what is left of the earlier ones after each step.

normbank gives every scanner a state of its own; a network that is fine-tuned
on each in turn is what it is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from experiments.kit.adaptation import Adapted, Mode, tune
from experiments.kit.folds import Fold
from experiments.kit.scans import FramedCases
from experiments.kit.scoring import Judge, ScanScore
from experiments.kit.stages import Document, Stage, Stages
from experiments.kit.training import Learned, Place
from experiments.kit.whole import WholeLearner
from models.adapt import Run, Tuning
from models.backbone import Backbone
from models.bench import Bench
from models.cases import LabelledSlices
from models.nearest import nearest
from models.state import State

OURS, WHOLE = "normbank", "one network, fine-tuned in turn"
METHODS = (OURS, WHOLE)
SHOWN = 3
"""Every n-th slice of a test scan is judged, each time the same ones."""

Matrix = dict[str, list[list[list[ScanScore]]]]
"""Method -> after step i -> on scanner j <= i -> every test scan."""


@dataclass(frozen=True)
class Found:
    """What the steps have left.

    Attributes
    ----------
    matrix : scores
    starts : the stored state that each scanner's own one began from
    """

    matrix: Matrix
    starts: tuple[str, ...]


class InTurn:
    """Scanners in order; every result is a stage.

    Parameters
    ----------
    states : stored ones, by name
    own : normbank's recipe
    rate : learning rate of the whole network; its other settings are `own`'s
    """

    def __init__(
        self,
        place: Place,
        backbone: Backbone,
        states: Mapping[str, State],
        own: Tuning,
        rate: float,
        stages: Stages,
        judge: Judge,
    ) -> None:
        self._place, self._stages, self._judge = place, stages, judge
        self._stored = dict(states)
        self._shipped = {name: state.sha256 for name, state in states.items()}
        self._own, self._rate = own, rate
        self._bench = place.bench(backbone)
        self._cases = FramedCases(self._bench)

    def run(self, folds: Sequence[Fold]) -> Found:
        """Every step, and after each the test scans of all scanners so far.

        Raises
        ------
        OutOfTimeError
            What is done is kept; run again.
        """
        matrix: Matrix = {method: [] for method in METHODS}
        starts: list[str] = []
        whole: Learned | None = None
        for step, fold in enumerate(folds):
            settings = self._settings(folds[: step + 1])
            probed = self._stages.run(
                f"{step} probe {fold.scanner}", settings, partial(self._probe, fold=fold)
            )
            start = str(probed["start"])
            starts.append(start)
            adapted = self._stages.run(
                f"{step} normbank {fold.scanner}",
                settings,
                partial(self._adapt, fold=fold, start=start),
            )
            self._stored[fold.scanner] = Adapted.from_document(adapted).state
            tuned = self._stages.run(
                f"{step} whole {fold.scanner}",
                settings,
                partial(self._tune, fold=fold, start=start, past=whole),
            )
            whole = Learned.from_document(tuned)
            seen = list(zip(folds[: step + 1], starts, strict=True))
            scores = self._stages.run(
                f"{step} scores", settings, partial(self._score, seen=seen, whole=whole)
            )
            for method in METHODS:
                matrix[method].append(
                    [[ScanScore.from_document(d) for d in row] for row in scores[method]]
                )
        return Found(matrix, tuple(starts))

    def _settings(self, folds: Sequence[Fold]) -> dict[str, Any]:
        files = [
            [row.scan.name, row.scan.stat().st_size]
            for fold in folds
            for row in (*fold.adapt, *fold.test)
        ]
        own = {**asdict(self._own), "rate": self._rate, "shown": SHOWN}
        return {"files": files, "states": self._shipped, "own": own}

    def _probe(self, _stage: Stage, fold: Fold) -> Document:
        outlined = [self._cases.outlined(row) for row in fold.halves[0]]
        return {"start": nearest(self._bench, self._stored, outlined, stride=4)[0].ref}

    def _halves(self, fold: Fold, start: str) -> list[list[LabelledSlices]]:
        return [[self._cases.case(row, self._stored[start]) for row in h] for h in fold.halves]

    def _adapt(self, stage: Stage, fold: Fold, start: str) -> Document:
        training, validation = self._halves(fold, start)
        mode = Mode(self._own, again=True)
        state = self._stored[start]
        return tune(stage, self._bench, state, training, validation, mode).to_document()

    def _tune(self, stage: Stage, fold: Fold, start: str, past: Learned | None) -> Document:
        """All weights, on both halves, from where the scanner before has left them."""
        training, validation = self._halves(fold, start)
        bench, state = self._bench, self._stored[start]
        if past is not None:
            bench, state = self._place.bench(past.backbone), past.states[WHOLE]
        state = replace(state, head=None, adapters=None)
        learner = WholeLearner(bench, state)
        tuning = replace(self._own, learning_rate=self._rate)
        run = Run(learner, [*training, *validation], tuning, bench.device)
        while run.done < tuning.steps:
            run.step()
            stage.at(run.done / tuning.steps, "all weights")
        backbone, learnt = learner.snapshot()
        return Learned(backbone, {WHOLE: learnt}, (), ()).to_document()

    def _score(self, _stage: Stage, seen: Sequence[tuple[Fold, str]], whole: Learned) -> Document:
        benches: dict[str, tuple[Bench, Any]] = {
            OURS: (self._bench, lambda fold: self._stored[fold.scanner]),
            WHOLE: (self._place.bench(whole.backbone), lambda _fold: whole.states[WHOLE]),
        }
        return {
            method: [
                [one.to_document() for one in self._scans(bench, state_of(fold), fold, start)]
                for fold, start in seen
            ]
            for method, (bench, state_of) in benches.items()
        }

    def _scans(self, bench: Bench, state: State, fold: Fold, start: str) -> list[ScanScore]:
        scans = [self._cases.test(row, self._stored[start]) for row in fold.test]
        shown = [replace(scan, case=scan.case.showing(SHOWN)) for scan in scans]
        return self._judge.score(bench, state, shown, distances=False)

"""One scanner after another: what is left of the earlier ones after each step.

normbank gives every scanner a state of its own; a network that is fine-tuned
on each in turn is what it is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from experiments.kit.adaptation import adapt_scans, probe, state_document, stored_state
from experiments.kit.batches import adaptation_batches
from experiments.kit.manifest import GRID, Fold, Preset, StudyContext, file_key
from experiments.kit.scoring import ScanScore, scores_document, stored_scores
from experiments.kit.stages import Document, Stage
from experiments.kit.training import TrainedNetwork, train

OURS, WHOLE = "normbank", "one network, fine-tuned in turn"
METHODS = (OURS, WHOLE)

Matrix = dict[str, list[list[list[ScanScore]]]]
"""Method -> after step i -> on scanner j <= i -> every test scan."""


@dataclass(frozen=True)
class Results:
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

    The whole network learns at the first of the preset's rates; its other
    settings are those of normbank's recipe.
    """

    def __init__(self, context: StudyContext, preset: Preset) -> None:
        self._context, self._own, self._rate = context, preset.own, preset.rates[0]
        self._states = dict(context.states)
        self._shipped = {name: state.sha256 for name, state in context.states.items()}

    def run(self, folds: Sequence[Fold]) -> Results:
        """Every step, and after each the test scans of all scanners so far.

        Raises
        ------
        OutOfTimeError
            What is done is kept; run again.
        """
        matrix: Matrix = {method: [] for method in METHODS}
        starts: list[str] = []
        whole: TrainedNetwork | None = None
        for step, fold in enumerate(folds):
            settings, run = self._settings(folds[: step + 1]), self._context.stages.run
            work = partial(self._probe, fold=fold)
            start = str(run(f"{step} probe {fold.scanner}", settings, work)["start"])
            starts.append(start)
            work = partial(self._adapt, fold=fold)
            adapted = run(f"{step} normbank {fold.scanner}", settings, work)
            self._states[fold.scanner], _ = stored_state(adapted)
            work = partial(self._fine_tune, fold=fold, start=start, past=whole)
            tuned = run(f"{step} whole {fold.scanner}", settings, work)
            whole = TrainedNetwork.from_document(tuned)
            work = partial(self._score, learnt=folds[: step + 1], whole=whole)
            scores = run(f"{step} scores", settings, work)
            for method in METHODS:
                matrix[method].append([stored_scores(row) for row in scores[method]])
        return Results(matrix, tuple(starts))

    def _settings(self, folds: Sequence[Fold]) -> dict[str, Any]:
        files = file_key([row for fold in folds for row in (*fold.adapt, *fold.test)])
        own = {**self._own.stage_key(), "rate": self._rate}
        return {"files": files, "states": self._shipped, "own": own, "grid": GRID}

    def _probe(self, _stage: Stage, fold: Fold) -> Document:
        training = [self._context.scans.outlined(row) for row in fold.halves[0]]
        return {"start": next(iter(probe(self._context.evaluator, self._states, training, 4)))}

    def _adapt(self, stage: Stage, fold: Fold) -> Document:
        adapted = adapt_scans(
            self._context.networks,
            self._states,
            [self._context.scans.scan(row) for row in fold.adapt],
            self._own,
            precision=self._context.precision,
            refit_on_all=True,
            on_progress=stage.on_progress,
        )
        return state_document(*adapted)

    def _fine_tune(
        self, stage: Stage, fold: Fold, start: str, past: TrainedNetwork | None
    ) -> Document:
        """All weights, on both halves, from where the scanner before has left them."""
        backbone, state = self._context.backbone, self._states[start]
        cases = [self._context.scans.slices(row, state) for row in fold.adapt]
        if past is not None:
            backbone, state = past.backbone, past.states[WHOLE]
        recipe = replace(self._own, learning_rate=self._rate)
        last = train(
            self._context.runtime,
            backbone.spec,
            {WHOLE: adaptation_batches(cases, recipe)},
            recipe.training(),
            seed=recipe.seed,
            start=(backbone, {WHOLE: state}),
            on_progress=stage.on_progress,
        ).last
        return TrainedNetwork(last.backbone, last.states).to_document()

    def _score(self, _stage: Stage, learnt: Sequence[Fold], whole: TrainedNetwork) -> Document:
        """Test scans of all scanners so far, by both methods."""
        score, state = self._context.score, whole.states[WHOLE]
        return {
            OURS: [scores_document(score(f.test, self._states[f.scanner])) for f in learnt],
            WHOLE: [scores_document(score(f.test, state, whole.backbone)) for f in learnt],
        }

"""The paper's question on real scanners: how much do a few labelled scans teach whom?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments.kit.adaptation import History, adapt_scans, probe
from experiments.kit.batches import adaptation_batches
from experiments.kit.manifest import GRID, Fold, Preset, StudyContext, file_key
from experiments.kit.recipes import Recipe
from experiments.kit.scoring import ScanScore, scores_document, stored_scores
from experiments.kit.stages import Document, Stage
from experiments.kit.training import TrainingResult, train
from models.backbone import Backbone
from models.cases import LabelledSlices
from models.recalibrate import recalibrate
from models.state import State
from models.train import Start

AS_IS = "nearest state, as is"
RECALIBRATED = "its statistics recalibrated, no labels"
PAPER = "batch norm as in the paper"
PLAIN = "batch norm, augmented"
HEADED = "batch norm and head, augmented"
HALF = "batch norm, head and adapters, augmented"
OURS = "normbank (the same, learnt again from all)"
TWO = "normbank with two labelled scans"
WHOLE = "whole network fine-tuned on all"
SCRATCH = "from scratch on all"
METHODS = (AS_IS, RECALIBRATED, PAPER, PLAIN, HEADED, HALF, TWO, OURS, WHOLE, SCRATCH)
SHORT_NAMES = {
    "recalibrated": RECALIBRATED,
    "paper": PAPER,
    "plain": PLAIN,
    "headed": HEADED,
    "half": HALF,
    "two": TWO,
    "whole": WHOLE,
    "scratch": SCRATCH,
}
"""Of the methods that can be left out."""
RECIPES: Mapping[str, Mapping[str, Any]] = {
    PAPER: {"learning_rate": 1e-3, "augment": False, "head": False, "adapters": False},
    PLAIN: {"head": False, "adapters": False},
    HEADED: {"adapters": False},
    HALF: {},
    TWO: {},
    OURS: {},
}
"""What differs from normbank's recipe."""
MAIN = (AS_IS, OURS, WHOLE)  # what further folds are about, with distances


_STATE = "state"  # name of the one domain of a fine-tuned network
_SPARSE = 4  # a probe scores every n-th slice


@dataclass(frozen=True)
class MethodResult:
    """One method on one fold.

    Attributes
    ----------
    history : validation points, (step, mean Dice)
    seconds : of learning
    """

    fold: Fold
    method: str
    scores: tuple[ScanScore, ...]
    history: History
    seconds: float


Learnt = tuple[Backbone | None, State, History]
"""A network that was trained here, or None; a state; the validation points on the way to them."""


class Scanners:
    """All folds, one after another; every result is a stage."""

    def __init__(self, context: StudyContext, preset: Preset) -> None:
        self._context, self._preset, self._states = context, preset, context.states
        self._rates: dict[str, float] = {}
        self.probes: dict[str, Document] = {}

    def run(self, folds: Sequence[Fold], without: Collection[str] = ()) -> list[MethodResult]:
        """Every method on the folds numbered 0, the main ones on the others.

        Parameters
        ----------
        without : methods that are left out
        """
        results = []
        for fold in folds:
            start = self._probe(fold)
            for method in METHODS if fold.number == 0 else MAIN:
                if method not in without:
                    results.append(self._result(fold, start, method))
        return results

    def answers(self, fold: Fold) -> dict[str, str]:
        """sha256 of what every stored state answers for a fold's first test scan."""
        return {
            name: self._context.score(fold.test[:1], state)[0].answer
            for name, state in self._states.items()
        }

    def on_test(self, fold: Fold) -> Document:
        """Mean Dice of every stored state on every n-th slice of the test set."""

        def work(_stage: Stage) -> Document:
            start = self._states[next(iter(self.probes[fold.name]))]
            cases = [self._context.scans.slices(row, start) for row in fold.test]
            return probe(self._context.evaluator, self._states, cases, _SPARSE)

        return self._run(f"{fold.name} every state", self._settings(fold, "every"), work)

    def _probe(self, fold: Fold) -> str:
        def work(_stage: Stage) -> Document:
            training = [self._context.scans.outlined(row) for row in fold.halves[0]]
            return probe(self._context.evaluator, self._states, training, _SPARSE)

        dice = self._run(f"{fold.name} probe", self._settings(fold, "probe"), work)
        self.probes[fold.name] = dice
        return str(max(dice, key=lambda name: dice[name]))

    def _result(self, fold: Fold, start: str, method: str) -> MethodResult:
        def work(stage: Stage) -> Document:
            backbone, state, history = self._learn(stage, fold, start, method)
            seconds = stage.seconds
            return {
                **scores_document(self._context.score(fold.test, state, backbone)),
                "looks": [list(point) for point in history],
                "seconds": seconds,
            }

        settings = self._settings(fold, method) | {"start": start}
        document = self._run(f"{fold.name} {method}", settings, work)
        history = tuple((int(step), float(dice)) for step, dice in document["looks"])
        scores, seconds = tuple(stored_scores(document)), float(document["seconds"])
        return MethodResult(fold, method, scores, history, seconds)

    def _run(
        self, name: str, settings: Mapping[str, Any], work: Callable[[Stage], Document]
    ) -> Document:
        return self._context.stages.run(name, settings, work)

    def _settings(self, fold: Fold, method: str) -> dict[str, Any]:
        return {
            "method": method,
            "files": file_key((*fold.adapt, *fold.test)),
            "states": {name: state.sha256 for name, state in self._states.items()},
            "plan": self._preset.stage_key(),
            "grid": GRID,
        }

    def _learn(self, stage: Stage, fold: Fold, start: str, method: str) -> Learnt:
        """Whatever a method learns from the fold's labelled cases."""
        if method == AS_IS:
            return None, self._states[start], ()
        if method in RECIPES:
            return None, *self._adapt(stage, fold, method)
        training, validation = self._halves(fold, start)
        cases = [*training, *validation]
        if method == RECALIBRATED:
            return None, recalibrate(self._context.evaluator, self._states[start], cases), ()
        if method == WHOLE:
            return self._whole(stage, fold, self._states[start], training, validation)
        return *_last(self._train(stage, None, cases, self._preset.scratch)), ()

    def _adapt(self, stage: Stage, fold: Fold, method: str) -> tuple[State, History]:
        """Batch norm, and what else a method has of its own, as the service learns it."""
        training, validation = fold.halves
        if method == TWO:
            training, validation = training[:1], validation[:1]
        return adapt_scans(
            self._context.networks,
            self._states,
            [self._context.scans.scan(row) for row in (*training, *validation)],
            replace(self._preset.own, **RECIPES[method]),
            precision=self._context.precision,
            refit_on_all=method in (TWO, OURS),
            on_progress=stage.on_progress,
        )

    def _halves(self, fold: Fold, start: str) -> list[list[LabelledSlices]]:
        """Training and validation set, the brain found with a stored state."""
        state = self._states[start]
        return [[self._context.scans.slices(row, state) for row in half] for half in fold.halves]

    def _whole(
        self,
        stage: Stage,
        fold: Fold,
        state: State,
        training: Sequence[LabelledSlices],
        validation: Sequence[LabelledSlices],
    ) -> Learnt:
        """The whole network at the rate that validates best, then again on all cases, as ours.

        Further folds of a scanner take the rate of its first one.
        """
        start = (self._context.backbone, {_STATE: state})
        chosen = self._rates.get(fold.scanner)
        histories: dict[float, History] = {}
        for rate in (chosen,) if chosen else self._preset.rates:
            recipe = replace(self._preset.own, learning_rate=rate)
            result = self._train(stage, start, training, recipe, validation)
            # Points on the way alone: before any step all rates are alike.
            histories[rate] = tuple(
                (int(step), dice)
                for step, dice in result.history
                if step and step % recipe.validate_every == 0
            )
        rate = max(histories, key=lambda rate: max(dice for _, dice in histories[rate]))
        self._rates[fold.scanner] = rate
        recipe = replace(self._preset.own, learning_rate=rate)
        result = self._train(stage, start, [*training, *validation], recipe)
        return *_last(result), histories[rate]

    def _train(
        self,
        stage: Stage,
        start: Start | None,
        cases: Sequence[LabelledSlices],
        recipe: Recipe,
        validation: Sequence[LabelledSlices] = (),
    ) -> TrainingResult:
        return train(
            self._context.runtime,
            self._context.backbone.spec,
            {_STATE: adaptation_batches(cases, recipe)},
            recipe.training(),
            seed=recipe.seed,
            start=start,
            validation={_STATE: validation} if validation else {},
            on_progress=stage.on_progress,
        )


def _last(result: TrainingResult) -> tuple[Backbone, State]:
    return result.last.backbone, result.last.states[_STATE]

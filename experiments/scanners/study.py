"""The paper's question on real scanners: how much do a few labelled scans teach whom?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from experiments.kit.adaptation import History, adapt_state, probe
from experiments.kit.batches import adaptation_batches
from experiments.kit.manifest import Fold, Preset, StudyContext
from experiments.kit.recipes import Recipe
from experiments.kit.scans import ManifestScans
from experiments.kit.scoring import ScanScore
from experiments.kit.stages import Document, Stage
from experiments.kit.training import TrainingResult, train
from models.backbone import Backbone
from models.cases import LabelledSlices
from models.evaluator import Evaluator
from models.recalibrate import recalibrate
from models.state import State
from models.train import Start
from training.manifest import Row

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


Learnt = tuple[Backbone, State, History]
"""A network, a state, and the validation points on the way to them."""


class Scanners:
    """All folds, one after another; every result is a stage."""

    def __init__(self, context: StudyContext, preset: Preset) -> None:
        self._context, self._preset = context, preset
        self._backbone, self._states = context.backbone, context.states
        self._rates: dict[str, float] = {}
        self.probes: dict[str, Document] = {}

    @cached_property
    def _evaluator(self) -> Evaluator:
        return self._context.runtime.evaluator(self._backbone)

    @cached_property
    def _scans(self) -> ManifestScans:
        return ManifestScans(self._evaluator)

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

    def answers(self, fold: Fold) -> Document:
        """sha256 of what every stored state answers for a fold's first test scan."""
        case = self._case(fold.test[0], next(iter(self._states)))
        sparse = case.images[::20]
        return {
            name: hashlib.sha256(self._evaluator.classes(state, sparse).tobytes()).hexdigest()
            for name, state in self._states.items()
        }

    def on_test(self, fold: Fold) -> Document:
        """Mean Dice of every stored state on every n-th slice of the test set."""

        def work(_stage: Stage) -> Document:
            start = next(iter(self.probes[fold.name]))
            cases = [self._case(row, start) for row in fold.test]
            return probe(self._evaluator, self._states, cases, _SPARSE)

        return self._run(f"{fold.name} every state", self._settings(fold, "every"), work)

    def _probe(self, fold: Fold) -> str:
        def work(_stage: Stage) -> Document:
            training = [self._scans.outlined(row) for row in fold.halves[0]]
            return probe(self._evaluator, self._states, training, _SPARSE)

        dice = self._run(f"{fold.name} probe", self._settings(fold, "probe"), work)
        self.probes[fold.name] = dice
        return str(max(dice, key=lambda name: dice[name]))

    def _result(self, fold: Fold, start: str, method: str) -> MethodResult:
        def work(stage: Stage) -> Document:
            backbone, state, history = self._learn(stage, fold, start, method)
            seconds = stage.seconds
            scans = [self._scans.scan(row, self._states[start]) for row in fold.test]
            shared = backbone is self._backbone
            evaluator = self._evaluator if shared else self._context.runtime.evaluator(backbone)
            scores = self._context.scorer.score(evaluator, state, scans, distances=method in MAIN)
            return {
                "scores": [score.to_document() for score in scores],
                "looks": [list(point) for point in history],
                "seconds": seconds,
            }

        settings = self._settings(fold, method) | {"start": start}
        document = self._run(f"{fold.name} {method}", settings, work)
        scores = tuple(ScanScore.from_document(score) for score in document["scores"])
        history = tuple((int(step), float(dice)) for step, dice in document["looks"])
        return MethodResult(fold, method, scores, history, float(document["seconds"]))

    def _run(
        self, name: str, settings: Mapping[str, Any], work: Callable[[Stage], Document]
    ) -> Document:
        return self._context.stages.run(name, settings, work)

    def _settings(self, fold: Fold, method: str) -> dict[str, Any]:
        files = [[row.scan.name, row.scan.stat().st_size] for row in (*fold.adapt, *fold.test)]
        states = {name: state.sha256 for name, state in self._states.items()}
        preset = self._preset.stage_key()
        return {"method": method, "files": files, "states": states, "plan": preset}

    def _learn(self, stage: Stage, fold: Fold, start: str, method: str) -> Learnt:
        """Whatever a method learns from the fold's labelled cases."""
        own, state = self._preset.own, self._states[start]
        if method == AS_IS:
            return self._backbone, state, ()
        training, validation = ([self._case(row, start) for row in half] for half in fold.halves)
        if method == TWO:
            training, validation = training[:1], validation[:1]
        if method == RECALIBRATED:
            cases = [*training, *validation]
            return self._backbone, recalibrate(self._evaluator, state, cases), ()
        if method == WHOLE:
            return self._whole(stage, fold, state, training, validation)
        if method == SCRATCH:
            cases = [*training, *validation]
            return *_last(self._train(stage, None, cases, self._preset.scratch)), ()
        recipe = {
            PAPER: replace(own, learning_rate=1e-3, augment=False, head=False, adapters=False),
            PLAIN: replace(own, head=False, adapters=False),
            HEADED: replace(own, adapters=False),
        }.get(method, own)
        return self._backbone, *adapt_state(
            self._evaluator,
            state,
            training,
            validation,
            recipe,
            refit_on_all=method in (TWO, OURS),
            on_progress=stage.on_progress,
        )

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
        start = (self._backbone, {_STATE: state})
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
            self._backbone.spec,
            {_STATE: adaptation_batches(cases, recipe)},
            recipe.training(),
            seed=recipe.seed,
            start=start,
            validation={_STATE: validation} if validation else {},
            on_progress=stage.on_progress,
        )

    def _case(self, row: Row, start: str) -> LabelledSlices:
        """A case, its brain found with a stored state."""
        return self._scans.case(row, self._states[start])


def _last(result: TrainingResult) -> tuple[Backbone, State]:
    return result.last.backbone, result.last.states[_STATE]

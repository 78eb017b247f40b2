"""The paper's question on real scanners: how much do a few labelled scans teach whom?"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from experiments.kit.folds import Fold
from experiments.kit.scans import FramedCases
from experiments.kit.scoring import Judge, ScanScore, TestScan
from experiments.kit.stages import Document, Stage, Stages
from experiments.kit.training import Place
from experiments.kit.whole import WholeLearner
from models.adapt import Adaptation, Run, Tuning, adapt, refit
from models.backbone import Backbone
from models.bench import Bench, mean_dice
from models.cases import LabelledSlices
from models.nearest import nearest
from models.recalibrate import recalibrate
from models.state import State
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


@dataclass(frozen=True)
class Plan:
    """How long everything may learn.

    Attributes
    ----------
    own : normbank's recipe
    scratch : of a network without a past; all steps are taken
    rates : learning rates that the whole network chooses from, by its validation half
    """

    own: Tuning
    scratch: Tuning
    rates: tuple[float, ...] = (1e-3, 3e-4)


PLANS: Mapping[str, Plan] = {
    "smoke": Plan(
        Tuning(steps=4, validate_every=2, batch_size=2, stride=8),
        scratch=Tuning(steps=4, batch_size=2, learning_rate=2e-3),
    ),
    "cpu": Plan(
        Tuning(steps=100, batch_size=8, validate_every=25),
        scratch=Tuning(steps=200, batch_size=8, learning_rate=2e-3),
    ),
    "full": Plan(
        Tuning(steps=600, batch_size=16, validate_every=50, patience=6),
        scratch=Tuning(steps=2000, batch_size=16, learning_rate=2e-3),
    ),
}


@dataclass(frozen=True)
class Outcome:
    """One method on one fold."""

    fold: Fold
    method: str
    scores: tuple[ScanScore, ...]
    looks: tuple[tuple[int, float], ...]
    seconds: float


class Scanners:
    """All folds, one after another; every result is a stage.

    Parameters
    ----------
    states : stored ones, by name
    """

    def __init__(
        self,
        place: Place,
        backbone: Backbone,
        states: Mapping[str, State],
        plan: Plan,
        stages: Stages,
        judge: Judge,
    ) -> None:
        self._place, self._plan, self._stages, self._judge = place, plan, stages, judge
        self._backbone, self._states = backbone, states
        self._rates: dict[str, float] = {}
        self.probes: dict[str, Document] = {}

    @cached_property
    def _bench(self) -> Bench:
        return self._place.bench(self._backbone)

    @cached_property
    def _cases(self) -> FramedCases:
        return FramedCases(self._bench)

    def run(self, folds: Sequence[Fold], without: Collection[str] = ()) -> list[Outcome]:
        """Every method on the folds numbered 0, the main ones on the others.

        Parameters
        ----------
        without : methods that are left out
        """
        found = []
        for fold in folds:
            nearest_one = self._probe(fold)
            for method in METHODS if fold.number == 0 else MAIN:
                if method not in without:
                    found.append(self._outcome(fold, nearest_one, method))
        return found

    def answers(self, fold: Fold) -> Document:
        """sha256 of what every stored state answers for a fold's first test scan."""
        case = self._case(fold.test[0], next(iter(self._states)))
        sparse = case.images[::20]
        return {
            name: hashlib.sha256(self._bench.classes(state, sparse).tobytes()).hexdigest()
            for name, state in self._states.items()
        }

    def on_test(self, fold: Fold) -> Document:
        """Mean Dice of every stored state on a sparse look at the whole test set."""

        def work(_stage: Stage) -> Document:
            start = next(iter(self.probes[fold.name]))
            cases = [self._case(row, start) for row in fold.test]
            found = nearest(self._bench, self._states, cases, stride=4)
            return {one.ref: one.dice for one in found}

        return self._stages.run(f"{fold.name} every state", self._settings(fold, "every"), work)

    def _probe(self, fold: Fold) -> str:
        def work(stage: Stage) -> Document:
            training = [self._cases.outlined(row) for row in fold.halves[0]]
            return {
                one.ref: one.dice for one in nearest(self._bench, self._states, training, stride=4)
            }

        self.probes[fold.name] = found = self._stages.run(
            f"{fold.name} probe", self._settings(fold, "probe"), work
        )
        return str(max(found, key=lambda name: found[name]))

    def _outcome(self, fold: Fold, start: str, method: str) -> Outcome:
        def work(stage: Stage) -> Document:
            backbone, state, looks = self._learn(stage, fold, start, method)
            seconds = stage.seconds
            scans = [TestScan(row.name, row.name, self._case(row, start)) for row in fold.test]
            bench = self._bench if backbone is self._backbone else self._place.bench(backbone)
            scores = self._judge.score(bench, state, scans, distances=method in MAIN)
            return {
                "scores": [score.to_document() for score in scores],
                "looks": [list(look) for look in looks],
                "seconds": seconds,
            }

        settings = self._settings(fold, method) | {"start": start}
        found = self._stages.run(f"{fold.name} {method}", settings, work)
        scores = tuple(ScanScore.from_document(one) for one in found["scores"])
        looks = tuple((int(step), float(dice)) for step, dice in found["looks"])
        return Outcome(fold, method, scores, looks, float(found["seconds"]))

    def _settings(self, fold: Fold, method: str) -> dict[str, Any]:
        files = [[row.scan.name, row.scan.stat().st_size] for row in (*fold.adapt, *fold.test)]
        states = {name: state.sha256 for name, state in self._states.items()}
        return {"method": method, "files": files, "states": states, "plan": asdict(self._plan)}

    def _learn(
        self, stage: Stage, fold: Fold, start: str, method: str
    ) -> tuple[Backbone, State, Sequence[tuple[int, float]]]:
        """A network, a state, and how the validation half saw it come."""
        own, state = self._plan.own, self._states[start]
        if method == AS_IS:
            return self._backbone, state, ()
        halves = [[self._case(row, start) for row in half] for half in fold.halves]
        if method == TWO:
            halves = [half[:1] for half in halves]
        everything = [*halves[0], *halves[1]]
        if method == RECALIBRATED:
            return self._backbone, recalibrate(self._bench, state, everything), ()
        if method == WHOLE:
            return self._whole(stage, fold, state, halves)
        if method == SCRATCH:
            learner = WholeLearner(self._bench, None, seed=own.seed)
            self._steps(stage, learner, everything, self._plan.scratch, self._plan.scratch.steps)
            return *learner.snapshot(), ()
        tuning = {
            PAPER: replace(own, learning_rate=1e-3, augmented=False, head=False, adapters=False),
            PLAIN: replace(own, head=False, adapters=False),
            HEADED: replace(own, adapters=False),
        }.get(method, own)
        found: Adaptation = adapt(self._bench, state, halves[0], halves[1], tuning, report=stage.at)
        looks = [(look.step, look.dice) for look in found.history]
        if method not in (TWO, OURS) or not found.best_step:
            return self._backbone, found.state, looks
        again = refit(self._bench, state, everything, tuning, report=stage.at)
        return self._backbone, again, looks

    def _whole(
        self, stage: Stage, fold: Fold, state: State, halves: Sequence[Sequence[LabelledSlices]]
    ) -> tuple[Backbone, State, Sequence[tuple[int, float]]]:
        """The best rate by the validation half, then all cases, as ours.

        Further folds of a scanner take the rate that its first one has found.
        """
        known = self._rates.get(fold.scanner)
        best: tuple[float, float, list[tuple[int, float]]] | None = None
        for rate in (known,) if known else self._plan.rates:
            tuning = replace(self._plan.own, learning_rate=rate)
            learner = WholeLearner(self._bench, state)
            looks = self._steps(stage, learner, halves[0], tuning, tuning.steps, halves[1])
            dice = max(dice for _, dice in looks)
            if best is None or dice > best[0]:
                best = (dice, rate, looks)
        assert best is not None
        _, rate, looks = best
        self._rates[fold.scanner] = rate
        learner = WholeLearner(self._bench, state)
        tuning = replace(self._plan.own, learning_rate=rate)
        self._steps(stage, learner, [*halves[0], *halves[1]], tuning, tuning.steps)
        return *learner.snapshot(), looks

    def _steps(
        self,
        stage: Stage,
        learner: WholeLearner,
        cases: Sequence[LabelledSlices],
        tuning: Tuning,
        length: int,
        validation: Sequence[LabelledSlices] = (),
    ) -> list[tuple[int, float]]:
        sparse = [case.showing(tuning.stride) for case in validation]
        run = Run(learner, cases, tuning, self._bench.device)
        looks = []
        while run.done < length:
            run.step()
            stage.at(run.done / length, "all weights")
            if sparse and run.done % tuning.validate_every == 0:
                backbone, state = learner.snapshot()
                looks.append(
                    (run.done, mean_dice(self._place.bench(backbone).score(state, sparse)))
                )
        return looks

    def _case(self, row: Row, start: str) -> LabelledSlices:
        """A case, its brain found with a stored state."""
        return self._cases.case(row, self._states[start])

"""Every row of the paper's table 2, on simulated scanners.

Karani et al., MICCAI 2018: dedicated networks, one network for three domains
with everything shared and with a batch norm per domain, and two new domains
brought in by histogram, by full fine-tuning and by the batch norm alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from experiments.kit.adaptation import adapt_slices, probe, state_document, stored_state
from experiments.kit.batches import DrawBatch, SlicePool, mixed
from experiments.kit.recipes import Recipe
from experiments.kit.scans import SimulatedScans
from experiments.kit.scoring import ScanScore, Scorer, SimulatedScan, scores_document, stored_scores
from experiments.kit.stages import Document, Stage, Stages
from experiments.kit.training import Runtime, TrainedNetwork, train
from experiments.table2.design import (
    FEW_TRAINING,
    FEW_VALIDATION,
    MODES,
    NEW,
    OLD,
    OWN,
    PAPER,
    TEST,
    TRAINING,
    VALIDATION,
    Preset,
)
from experiments.table2.histogram import average_histogram, matched
from experiments.table2.results import (
    ALL,
    BN,
    FINE_TUNED,
    MATCHED,
    SHARED,
    Results,
    Retention,
    TableRow,
    adapted_row,
    bn,
    dedicated,
)
from models.backbone import hash_network
from models.cases import LabelledSlices
from models.evaluator import Evaluator
from models.state import State

_HALF = 2  # labelled cases in each half, as in the paper


class Table2:
    """The study, stage by stage.

    Parameters
    ----------
    data : what the scans depend on
    scans : read when they are needed
    """

    def __init__(
        self,
        preset: Preset,
        data: Mapping[str, Any],
        scans: SimulatedScans,
        stages: Stages,
        runtime: Runtime,
        scorer: Scorer,
    ) -> None:
        self._preset, self._scans, self._stages = preset, scans, stages
        self._runtime, self._scorer = runtime, scorer
        self._data = {**data, "precision": str(runtime.precision), "device": runtime.device.type}
        self._results = Results()

    def run(self) -> Results:
        """Everything, in the order of the table.

        Raises
        ------
        OutOfTimeError
            What is done is stored; run again.
        """
        steps, shared_steps = self._preset.training.steps, self._preset.shared_steps
        for domain in (*OLD, *NEW):
            self._train(dedicated(domain), {domain: (domain,)}, steps)
            self._score(dedicated(domain), domain, domain, distances=True)
        self._train(SHARED, {ALL: OLD}, shared_steps)
        self._train(BN, {domain: (domain,) for domain in OLD}, shared_steps)
        for domain in (*OLD, *NEW):
            self._score(SHARED, domain, ALL, distances=True)
        for domain in OLD:
            self._score(BN, domain, domain, distances=True)
        for domain in NEW:
            self._bring_in(domain)
        self._curve(NEW[0])
        return self._results

    def _bring_in(self, domain: str) -> None:
        """One new domain, in every way that the table compares."""
        for old in OLD:
            self._score(BN, domain, old)
        self._probe(domain)
        self._match(domain)
        self._fine_tune(domain)
        self._adapt(domain)

    def _train(self, name: str, mix: Mapping[str, Sequence[str]], steps: int) -> None:
        """Train a network; `mix` names the domains behind each of its states."""
        training = replace(self._preset.training, steps=steps)

        def work(stage: Stage) -> Document:
            batches, validation = {}, {}
            for state, domains in mix.items():
                sources = [self._source(domain) for domain in domains]
                batches[state] = sources[0] if len(sources) == 1 else mixed(sources)
                validation[state] = [
                    case for domain in domains for case in self._scans.cases(domain, VALIDATION)
                ]
            return train(
                self._runtime,
                self._preset.spec(name),
                batches,
                training,
                seed=self._preset.seed,
                validation=validation,
                on_progress=stage.on_progress,
                checkpoints=stage,
            ).to_document()

        settings = {**self._data, **self._preset.network_settings(), **training.stage_key()}
        document = self._stages.run(f"network-{name}", settings, work)
        self._results.networks[name] = TrainedNetwork.from_document(document)

    def _source(self, domain: str) -> DrawBatch:
        cases = self._scans.cases(domain, TRAINING)
        seed = self._preset.seed + int(domain[1])
        return SlicePool(cases, seed, self._runtime.device, self._preset.training.crop).draw

    def _fine_tune(self, domain: str) -> None:
        """All of the shared network, on the few labelled scans; then the old domains again."""
        name, training = FINE_TUNED[domain], self._preset.adapting.whole
        parent, seed = self._results.networks[SHARED], self._preset.seed

        def work(stage: Stage) -> Document:
            cases, validation = self._few(domain, _HALF)
            return train(
                self._runtime,
                parent.backbone.spec,
                {ALL: SlicePool(cases, seed, self._runtime.device).draw},
                training,
                seed=seed,
                start=(parent.backbone, parent.states),
                validation={ALL: validation},
                on_progress=stage.on_progress,
                checkpoints=stage,
            ).to_document()

        settings = {**self._data, **training.stage_key(), "parent": parent.states[ALL].sha256}
        stage_name = f"network-{_stage_name(TableRow(name, domain, ALL))}"
        document = self._stages.run(stage_name, settings, work)
        self._results.networks[name] = TrainedNetwork.from_document(document)
        for tested in (domain, *OLD):
            self._score(name, tested, ALL, distances=tested == domain)

    def _few(self, domain: str, half: int) -> tuple[list[LabelledSlices], list[LabelledSlices]]:
        """As many labelled scans for training as for validation; half 0: one, and none."""
        training = self._scans.cases(domain, FEW_TRAINING, max(half, 1))
        return training, self._scans.cases(domain, FEW_VALIDATION, half)

    def _probe(self, domain: str) -> None:
        network = self._results.networks[BN]

        def work(_stage: Stage) -> Document:
            training, _ = self._few(domain, _HALF)
            return probe(self._runtime.evaluator(network.backbone), network.states, training)

        settings = {**self._data, "states": _hashes(network)}
        self._results.probes[domain] = self._stages.run(f"probe-{domain}", settings, work)

    def _adapt(self, domain: str) -> None:
        """Both modes, then the old domains again with the very network that was used."""
        network = self._results.networks[BN]

        def work(stage: Stage) -> Document:
            evaluator, before = self._runtime.evaluator(network.backbone), _hashes(network)
            adapted = {mode: self._adapted(stage, evaluator, domain, _HALF, mode) for mode in MODES}
            old = {
                name: scores_document(
                    self._scorer.score(
                        evaluator, state, self._scans.scans(name, TEST), distances=False
                    )
                )
                for name, state in network.states.items()
            }
            return {"found": adapted, "before": before, "old": old, "after": _hashes(network)}

        modes = {mode: self._mode_key(mode) for mode in MODES}
        settings = {**self._start_settings(domain), "modes": modes}
        document = self._stages.run(f"adapt-{domain}", settings, work)
        old = {name: stored_scores(scores) for name, scores in document["old"].items()}
        self._results.retention[domain] = Retention(old, document["before"], document["after"])
        for mode, state in document["found"].items():
            self._results.adapted[domain, mode] = stored_state(state)
            self._score_adapted(domain, mode)

    def _score_adapted(self, domain: str, mode: str) -> None:
        """The new domain with its new state; the old ones as scored after both modes."""
        row, (state, _) = adapted_row(domain, mode), self._results.adapted[domain, mode]
        evaluator = self._runtime.evaluator(self._results.networks[BN].backbone)
        self._score_row(row, evaluator, state, self._scans.scans(domain, TEST), distances=True)
        if mode != PAPER:
            return
        for old, scores in self._results.retention[domain].scores.items():
            self._results.scores[TableRow(row.network, old, bn(old))] = list(scores)

    def _adapted(
        self, stage: Stage, evaluator: Evaluator, domain: str, half: int, mode: str
    ) -> Document:
        """The closest state, adapted on `2 * half` labelled cases; half 0: on one."""
        start = self._results.networks[BN].states[self._results.closest(domain)]
        training, validation = self._few(domain, half)
        adapted = adapt_slices(
            evaluator,
            start,
            training,
            validation,
            self._recipe(mode),
            refit_on_all=mode == OWN,
            on_progress=stage.on_progress,
        )
        return state_document(*adapted)

    def _recipe(self, mode: str) -> Recipe:
        return self._preset.adapting.recipe(mode, self._preset.seed)

    def _mode_key(self, mode: str) -> dict[str, Any]:
        """A mode as keys of stored stages name it."""
        return {"tuning": self._recipe(mode).stage_key(), "again": mode == OWN}

    def _start_settings(self, domain: str) -> dict[str, Any]:
        network, closest = self._results.networks[BN], self._results.closest(domain)
        return {**self._data, "states": _hashes(network), "closest": closest}

    def _curve(self, domain: str) -> None:
        """normbank's own mode with fewer and with more labelled cases."""
        evaluator = self._runtime.evaluator(self._results.networks[BN].backbone)
        for count in self._preset.adapting.curve:

            def work(stage: Stage, half: int = count // 2) -> Document:
                return self._adapted(stage, evaluator, domain, half, OWN)

            start, mode = self._start_settings(domain), self._mode_key(OWN)
            name, settings = f"curve-{count}-{domain}", {**start, "mode": mode, "cases": count}
            state, _ = stored_state(self._stages.run(name, settings, work))
            scans = self._scans.scans(domain, TEST)
            self._results.curve[count] = self._scored(name, evaluator, state, scans)

    def _match(self, domain: str) -> None:
        """The shared network on scans with the closest domain's histogram."""
        network, closest = self._results.networks[SHARED], self._results.closest(domain)
        histogram = average_histogram(self._scans.cases(closest, TRAINING))
        scans = [
            replace(scan, case=matched(scan.case, histogram))
            for scan in self._scans.scans(domain, TEST)
        ]
        row, evaluator = TableRow(MATCHED, domain, ALL), self._runtime.evaluator(network.backbone)
        self._score_row(row, evaluator, network.states[ALL], scans, note=closest)

    def _score(self, name: str, domain: str, state: str, *, distances: bool = False) -> None:
        """One of a network's states on a domain's test scans."""
        network = self._results.networks[name]
        row = TableRow(name, domain, ALL if state == ALL else bn(state))
        evaluator, scans = (
            self._runtime.evaluator(network.backbone),
            self._scans.scans(domain, TEST),
        )
        self._score_row(row, evaluator, network.states[state], scans, distances=distances)

    def _score_row(
        self,
        row: TableRow,
        evaluator: Evaluator,
        state: State,
        scans: Sequence[SimulatedScan],
        **options: Any,
    ) -> None:
        name = _stage_name(row)
        self._results.scores[row] = self._scored(name, evaluator, state, scans, **options)

    def _scored(
        self,
        name: str,
        evaluator: Evaluator,
        state: State,
        scans: Sequence[SimulatedScan],
        *,
        distances: bool = False,
        note: str = "",
    ) -> list[ScanScore]:
        """Score the scans, unless that is stored; `note`: what else was done to them."""

        def work(_stage: Stage) -> Document:
            return scores_document(self._scorer.score(evaluator, state, scans, distances=distances))

        settings = {"state": state.sha256, "distances": distances, "note": note}
        document = self._stages.run(f"scores-{name}", {**self._data, **settings}, work)
        return stored_scores(document)


def _stage_name(row: TableRow) -> str:
    """A row as a file name."""
    return "-".join(row).replace("→", "to").replace("*", "").replace(", ", "-").replace(" ", "-")


def _hashes(network: TrainedNetwork) -> dict[str, str]:
    """Of the backbone's tensors as they are now, and of every state."""
    states = {name: state.sha256 for name, state in network.states.items()}
    return {"backbone": hash_network(network.backbone.network), **states}

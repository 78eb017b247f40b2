"""Every row of the paper's table 2, on simulated scanners.

Karani et al., MICCAI 2018: dedicated networks, one network for three domains
with everything shared and with a batch norm per domain, and two new domains
brought in by histogram, by full fine-tuning and by the batch norm alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from experiments.kit.adaptation import MODES, OWN, PAPER, Adapted, Mode, probe, tune
from experiments.kit.batches import Draw, Pool, mixed
from experiments.kit.scoring import Judge, TestScan
from experiments.kit.stages import Document, Stage, Stages
from experiments.kit.training import Learned, Place, learn
from experiments.table2.cases import Cases
from experiments.table2.cohort import FEW_TRAINING, FEW_VALIDATION, NEW, OLD, TRAINING, VALIDATION
from experiments.table2.findings import ALL, BN, SHARED, Findings, Kept, adapted_row, bn, dedicated
from experiments.table2.histogram import average_histogram, matched
from experiments.table2.paper import FINE_TUNED, MATCHED, Row
from experiments.table2.presets import Preset
from experiments.table2.scoreboard import Scoreboard, as_document, from_document, stage_name
from models.backbone import hash_network
from models.bench import Bench
from models.state import State

_HALF = 2  # labelled cases in each half, as in the paper


class Table2:
    """The study, stage by stage.

    Parameters
    ----------
    data : what the scans depend on
    cases : the scans
    """

    def __init__(
        self,
        preset: Preset,
        data: Mapping[str, Any],
        cases: Cases,
        stages: Stages,
        place: Place,
        judge: Judge,
    ) -> None:
        self._preset, self._cases, self._stages, self._place = preset, cases, stages, place
        self._data = {**data, "precision": str(place.precision), "device": place.device.type}
        self._board = Scoreboard(stages, judge, self._data)
        self._found = Findings()

    def run(self) -> Findings:
        """Everything, in the order of the table.

        Raises
        ------
        OutOfTimeError
            What is done is kept; run again.
        """
        plan = self._preset.learning
        for domain in (*OLD, *NEW):
            self._learn(dedicated(domain), {domain: (domain,)}, plan.steps)
            self._score(dedicated(domain), domain, domain, distances=True)
        self._learn(SHARED, {ALL: OLD}, plan.shared_steps)
        self._learn(BN, {domain: (domain,) for domain in OLD}, plan.shared_steps)
        for domain in (*OLD, *NEW):
            self._score(SHARED, domain, ALL, distances=True)
        for domain in OLD:
            self._score(BN, domain, domain, distances=True)
        for domain in NEW:
            self._bring_in(domain)
        self._curve(NEW[0])
        return self._found

    def _bring_in(self, domain: str) -> None:
        """One new domain, in every way that the table compares."""
        for old in OLD:
            self._score(BN, domain, old)
        self._probe(domain)
        self._match(domain)
        self._fine_tune(domain)
        self._adapt(domain)

    def _learn(self, name: str, mix: Mapping[str, Sequence[str]], steps: int) -> None:
        """Train a network; `mix` names the domains behind each of its states."""

        def work(stage: Stage) -> Document:
            draws, validation = {}, {}
            for state, domains in mix.items():
                pools = [self._draw(domain) for domain in domains]
                draws[state] = pools[0] if len(pools) == 1 else mixed(pools)
                validation[state] = [c for d in domains for c in self._cases.of(d, VALIDATION)]
            spec, plan, seed = self._preset.spec(name), self._preset.learning, self._preset.seed
            return learn(stage, self._place, spec, draws, validation, plan, steps=steps, seed=seed)

        settings = {
            **self._data,
            **self._preset.network_settings(),
            **asdict(self._preset.learning),
            "steps": steps,
            "shared_steps": steps,
        }
        document = self._stages.run(f"network-{name}", settings, work)
        self._found.networks[name] = Learned.from_document(document)

    def _draw(self, domain: str) -> Draw:
        cases = self._cases.of(domain, TRAINING)
        seed = self._preset.seed + int(domain[1])
        return Pool(cases, seed, self._place.device, self._preset.learning.crop).draw

    def _fine_tune(self, domain: str) -> None:
        """All of the shared network, on the few labelled scans; then the old domains again."""
        name, plan, seed = FINE_TUNED[domain], self._preset.adapting.whole, self._preset.seed
        parent = self._found.networks[SHARED]

        def work(stage: Stage) -> Document:
            training, validation = self._few(domain, _HALF)
            draws = {ALL: Pool(training, seed, self._place.device).draw}
            spec, start = parent.backbone.spec, (parent.backbone, parent.states)
            held = {ALL: validation}
            return learn(
                stage,
                self._place,
                spec,
                draws,
                held,
                plan,
                steps=plan.steps,
                seed=seed,
                start=start,
            )

        settings = {**self._data, **asdict(plan), "parent": parent.states[ALL].sha256}
        document = self._stages.run(f"network-{stage_name(Row(name, domain, ALL))}", settings, work)
        self._found.networks[name] = Learned.from_document(document)
        for tested in (domain, *OLD):
            self._score(name, tested, ALL, distances=tested == domain)

    def _few(self, domain: str, half: int) -> tuple[Any, Any]:
        """As many labelled scans to learn from as to decide; half 0: one, and none."""
        training = self._cases.of(domain, FEW_TRAINING, max(half, 1))
        return training, self._cases.of(domain, FEW_VALIDATION, half)

    def _probe(self, domain: str) -> None:
        network = self._found.networks[BN]

        def work(_stage: Stage) -> Document:
            training, _ = self._few(domain, _HALF)
            return probe(self._place.bench(network.backbone), network.states, training)

        settings = {**self._data, "states": _hashes(network)}
        self._found.probes[domain] = self._stages.run(f"probe-{domain}", settings, work)

    def _adapt(self, domain: str) -> None:
        """Both modes, then the old domains again with the very network that was used."""
        network = self._found.networks[BN]

        def work(stage: Stage) -> Document:
            bench, before = self._place.bench(network.backbone), _hashes(network)
            found = {
                mode: self._tuned(stage, bench, domain, _HALF, mode).to_document() for mode in MODES
            }
            old = {
                name: as_document(self._board.now(bench, state, self._cases.test(name)))
                for name, state in network.states.items()
            }
            return {"found": found, "before": before, "old": old, "after": _hashes(network)}

        modes = {mode: asdict(self._mode(mode)) for mode in MODES}
        settings = {**self._start_settings(domain), "modes": modes}
        document = self._stages.run(f"adapt-{domain}", settings, work)
        old = {name: from_document(one) for name, one in document["old"].items()}
        self._found.kept[domain] = Kept(old, document["before"], document["after"])
        for mode, found in document["found"].items():
            self._found.adapted[domain, mode] = Adapted.from_document(found)
            self._score_adapted(domain, mode)

    def _score_adapted(self, domain: str, mode: str) -> None:
        """The new domain with its new state; the old ones as scored after both modes."""
        row, state = adapted_row(domain, mode), self._found.adapted[domain, mode].state
        bench = self._place.bench(self._found.networks[BN].backbone)
        self._score_scans(row, bench, state, self._cases.test(domain), distances=True)
        if mode != PAPER:
            return
        for old, scores in self._found.kept[domain].scores.items():
            self._found.scores[Row(row.network, old, bn(old))] = list(scores)

    def _tuned(self, stage: Stage, bench: Bench, domain: str, half: int, mode: str) -> Adapted:
        """The closest state, tuned on `2 * half` labelled cases; half 0: on one."""
        start = self._found.networks[BN].states[self._found.closest(domain)]
        training, validation = self._few(domain, half)
        return tune(stage, bench, start, training, validation, self._mode(mode))

    def _mode(self, name: str) -> Mode:
        return self._preset.adapting.mode(name, self._preset.seed)

    def _start_settings(self, domain: str) -> dict[str, Any]:
        network, closest = self._found.networks[BN], self._found.closest(domain)
        return {**self._data, "states": _hashes(network), "closest": closest}

    def _curve(self, domain: str) -> None:
        """normbank's own mode with fewer and with more labelled cases."""
        bench = self._place.bench(self._found.networks[BN].backbone)
        for count in self._preset.adapting.curve:

            def work(stage: Stage, half: int = count // 2) -> Document:
                return self._tuned(stage, bench, domain, half, OWN).to_document()

            settings = {
                **self._start_settings(domain),
                "mode": asdict(self._mode(OWN)),
                "cases": count,
            }
            document = self._stages.run(f"curve-{count}-{domain}", settings, work)
            state, scans = Adapted.from_document(document).state, self._cases.test(domain)
            self._found.curve[count] = self._board.score(
                f"curve-{count}-{domain}", bench, state, scans
            )

    def _match(self, domain: str) -> None:
        """The shared network on scans with the closest domain's histogram."""
        network, closest = self._found.networks[SHARED], self._found.closest(domain)
        histogram = average_histogram(self._cases.of(closest, TRAINING))
        scans = [
            TestScan(scan.name, scan.anatomy, matched(scan.case, histogram))
            for scan in self._cases.test(domain)
        ]
        row, bench = Row(MATCHED, domain, ALL), self._place.bench(network.backbone)
        self._score_scans(row, bench, network.states[ALL], scans, note=closest)

    def _score(self, network: str, domain: str, state: str, *, distances: bool = False) -> None:
        """One of a network's states on a domain's test scans."""
        learned = self._found.networks[network]
        row = Row(network, domain, ALL if state == ALL else bn(state))
        bench, scans = self._place.bench(learned.backbone), self._cases.test(domain)
        self._score_scans(row, bench, learned.states[state], scans, distances=distances)

    def _score_scans(
        self, row: Row, bench: Bench, state: State, scans: Sequence[TestScan], **options: Any
    ) -> None:
        name = stage_name(row)
        self._found.scores[row] = self._board.score(name, bench, state, scans, **options)


def _hashes(network: Learned) -> dict[str, str]:
    """Of the backbone's tensors as they are now, and of every state."""
    states = {name: state.sha256 for name, state in network.states.items()}
    return {"backbone": hash_network(network.backbone.network), **states}

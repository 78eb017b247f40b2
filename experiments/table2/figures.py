"""The study's pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.kit.figures import (
    Bar,
    Line,
    Picture,
    curves,
    grouped_bars,
    overlays,
    save,
)
from experiments.kit.scans import SimulatedScans
from experiments.kit.scoring import ScanScore, SimulatedScan
from experiments.kit.tables import summary
from experiments.kit.training import Runtime
from experiments.table2.design import CLASSES, MODES, NEW, OLD, OWN, TEST
from experiments.table2.results import (
    ADAPTED,
    ALL,
    BN,
    FINE_TUNED,
    MATCHED,
    SHARED,
    Results,
    TableRow,
    adapted_row,
    bn,
    dedicated,
)
from normbank.anatomy import EVALUATED, classes_of


def draw_all(folder: Path, results: Results, scans: SimulatedScans, runtime: Runtime) -> None:
    """Write every picture of the study into a folder."""
    for name, figure in {
        "dice-new-domains": dice_of_new(results),
        "dice-old-domains": dice_of_old(results),
        "learning": learning(results),
        "adapting": adapting(results),
        "labelled-cases": labelled_cases(results),
    }.items():
        save(figure, folder, name)
    rows = {domain: _qualitative(results, scans, runtime, domain) for domain in NEW}
    save(overlays(rows, EVALUATED), folder, "examples", kinds=("png",))


def dice_of_new(results: Results) -> Figure:
    """Every way of bringing a new domain in."""
    groups: dict[str, dict[str, Bar]] = {}
    for domain in NEW:
        rows = {
            "N123 as it is": TableRow(SHARED, domain, ALL),
            "histogram matched": TableRow(MATCHED, domain, ALL),
            "closest stored state": TableRow(BN, domain, bn(results.closest(domain))),
            "batch norm tuned, as in the paper": adapted_row(domain, MODES[0]),
            "normbank's own mode": adapted_row(domain, OWN),
            "all of N123 fine-tuned": TableRow(FINE_TUNED[domain], domain, ALL),
            "dedicated network": TableRow(dedicated(domain), domain, bn(domain)),
        }
        groups[domain] = {name: _bar(results.scores[row]) for name, row in rows.items()}
    title = "New domains: mean Dice of seven structures, 95 % interval over scans"
    return grouped_bars(groups, title=title, y_label="Dice")


def dice_of_old(results: Results) -> Figure:
    """What the old domains keep."""
    groups = {}
    for old in OLD:
        rows = {
            "dedicated network": TableRow(dedicated(old), old, bn(old)),
            "own batch norm": TableRow(BN, old, bn(old)),
            "own batch norm, after D4 and D5": TableRow(ADAPTED[NEW[-1]], old, bn(old)),
            "N123": TableRow(SHARED, old, ALL),
            "N123 fine-tuned to D4": TableRow(FINE_TUNED["D4"], old, ALL),
            "N123 fine-tuned to D5": TableRow(FINE_TUNED["D5"], old, ALL),
        }
        groups[old] = {name: _bar(results.scores[row]) for name, row in rows.items()}
    title = "Old domains: mean Dice of seven structures, 95 % interval over scans"
    return grouped_bars(groups, title=title, y_label="Dice")


def _bar(scores: Sequence[ScanScore]) -> Bar:
    dice = summary([score.mean for score in scores])
    return Bar(dice.mean, dice.low, dice.high)


def learning(results: Results) -> Figure:
    """Training loss and validation Dice of every network."""
    losses, validation = {}, {}
    for name, network in results.networks.items():
        loss = np.array(network.losses)
        width = max(1, len(loss) // 40)
        smooth = np.convolve(loss, np.ones(width) / width, "valid")
        steps = np.arange(len(smooth)) + (width + 1) / 2
        losses[name] = Line(steps.tolist(), smooth.tolist())
        validation[name] = Line(*zip(*network.history, strict=True))
    panels = {"training loss": losses, "Dice on validation scans": validation}
    return curves(panels, x_label="steps")


def adapting(results: Results) -> Figure:
    """Validation Dice while a batch norm is tuned."""
    lines = {
        f"{domain}, {mode} mode": Line(*zip(*history, strict=True))
        for (domain, mode), (_, history) in results.adapted.items()
    }
    return curves({"Dice on the validation half": lines}, x_label="steps")


def labelled_cases(results: Results) -> Figure:
    """Dice on test scans against the number of labelled cases."""
    dice = {
        count: summary([score.mean for score in scores]) for count, scores in results.curve.items()
    }
    band = ([s.low for s in dice.values()], [s.high for s in dice.values()])
    line = Line([float(count) for count in dice], [s.mean for s in dice.values()], band)
    panels: Mapping[str, Mapping[str, Line]] = {
        f"Dice on {NEW[0]}": {"normbank's own mode, 95 % interval": line}
    }
    return curves(panels, x_label="labelled cases", log_x=True)


def _qualitative(
    results: Results, scans: SimulatedScans, runtime: Runtime, domain: str
) -> dict[str, Picture]:
    """One test scan in every way, as in the paper's figure 2."""
    scan = _typical(results, scans, domain)
    slice_ = _fullest(scan.case.classes)
    images = scan.case.images[slice_ : slice_ + 1]
    network = results.networks[BN]
    alone = results.networks[dedicated(domain)]
    closest = results.closest(domain)
    answers: dict[str, NDArray[np.uint8]] = {}
    for title, trained, state in (
        (f"closest state, {bn(closest)}", network, network.states[closest]),
        ("normbank's own mode", network, results.adapted[domain, OWN][0]),
        ("dedicated network", alone, alone.states[domain]),
    ):
        answers[title] = runtime.evaluator(trained.backbone).classes(state, images)[0]
    answers["reference"] = scan.case.classes[slice_]
    grey = images[0] / max(float(np.percentile(images[0], 99)), 1e-6)
    pictures = {f"{scan.name}": Picture(grey)}
    classes = network.backbone.spec.classes
    for title, answer in answers.items():
        pictures[title] = Picture(grey, _structures(answer, classes))
    return pictures


def _typical(results: Results, scans: SimulatedScans, domain: str) -> SimulatedScan:
    """The test scan with the median Dice of the adapted state."""
    scores = results.scores[adapted_row(domain, OWN)]
    order = sorted(range(len(scores)), key=lambda index: scores[index].mean)
    return scans.scans(domain, TEST)[order[len(order) // 2]]


def _fullest(classes: NDArray[np.uint8]) -> int:
    """The slice that shows most structures, and most of the smallest of them."""
    classes_shown = [numbers[0] for name in EVALUATED if (numbers := classes_of(name, CLASSES))]
    counts = np.stack([(classes == number).sum((1, 2)) for number in classes_shown], axis=1)
    shares = counts / np.maximum(counts.max(axis=0), 1)
    return int(np.argmax((counts > 0).sum(1) + shares.mean(1)))


def _structures(answer: NDArray[np.uint8], classes: Sequence[str]) -> NDArray[np.uint8]:
    """Numbers of colours, from 1, in the order of the seven structures."""
    painted = np.zeros(answer.shape, np.uint8)
    for colour, name in enumerate(EVALUATED, start=1):
        painted[np.isin(answer, classes_of(name, classes))] = colour
    return painted

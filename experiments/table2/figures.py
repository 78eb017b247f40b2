"""The study's pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.kit.adaptation import MODES, OWN
from experiments.kit.figures import Bar, Line, Picture, curves, grouped_bars, overlays, save
from experiments.kit.scoring import ScanScore, TestScan
from experiments.kit.statistics import summary
from experiments.kit.training import Place
from experiments.table2.cases import Cases
from experiments.table2.cohort import NEW, OLD
from experiments.table2.findings import ALL, BN, SHARED, Findings, adapted_row, bn, dedicated
from experiments.table2.paper import ADAPTED, FINE_TUNED, MATCHED, Row
from experiments.table2.presets import CLASSES
from normbank.anatomy import EVALUATED, classes_of


def draw_all(folder: Path, found: Findings, cases: Cases, place: Place) -> None:
    """Write every picture of the study into a folder."""
    for name, figure in {
        "dice-new-domains": dice_of_new(found),
        "dice-old-domains": dice_of_old(found),
        "learning": learning(found),
        "adapting": adapting(found),
        "labelled-cases": labelled_cases(found),
    }.items():
        save(figure, folder, name)
    rows = {domain: _qualitative(found, cases, place, domain) for domain in NEW}
    save(overlays(rows, EVALUATED), folder, "examples", kinds=("png",))


def dice_of_new(found: Findings) -> Figure:
    """Every way of bringing a new domain in."""
    groups: dict[str, dict[str, Bar]] = {}
    for domain in NEW:
        rows = {
            "N123 as it is": Row(SHARED, domain, ALL),
            "histogram matched": Row(MATCHED, domain, ALL),
            "closest stored state": Row(BN, domain, bn(found.closest(domain))),
            "batch norm tuned, as in the paper": adapted_row(domain, MODES[0]),
            "normbank's own mode": adapted_row(domain, OWN),
            "all of N123 fine-tuned": Row(FINE_TUNED[domain], domain, ALL),
            "dedicated network": Row(dedicated(domain), domain, bn(domain)),
        }
        groups[domain] = {name: _bar(found.scores[row]) for name, row in rows.items()}
    title = "New domains: mean Dice of seven structures, 95 % interval over scans"
    return grouped_bars(groups, title=title, y_label="Dice")


def dice_of_old(found: Findings) -> Figure:
    """What the old domains keep."""
    groups = {}
    for old in OLD:
        rows = {
            "dedicated network": Row(dedicated(old), old, bn(old)),
            "own batch norm": Row(BN, old, bn(old)),
            "own batch norm, after D4 and D5": Row(ADAPTED[NEW[-1]], old, bn(old)),
            "N123": Row(SHARED, old, ALL),
            "N123 fine-tuned to D4": Row(FINE_TUNED["D4"], old, ALL),
            "N123 fine-tuned to D5": Row(FINE_TUNED["D5"], old, ALL),
        }
        groups[old] = {name: _bar(found.scores[row]) for name, row in rows.items()}
    title = "Old domains: mean Dice of seven structures, 95 % interval over scans"
    return grouped_bars(groups, title=title, y_label="Dice")


def _bar(scores: Sequence[ScanScore]) -> Bar:
    one = summary([score.mean for score in scores])
    return Bar(one.mean, one.low, one.high)


def learning(found: Findings) -> Figure:
    """Training loss and validation Dice of every network."""
    losses, looks = {}, {}
    for name, network in found.networks.items():
        loss = np.array(network.losses)
        width = max(1, len(loss) // 40)
        smooth = np.convolve(loss, np.ones(width) / width, "valid")
        steps = np.arange(len(smooth)) + (width + 1) / 2
        losses[name] = Line(steps.tolist(), smooth.tolist())
        looks[name] = Line(*zip(*network.looks, strict=True))
    panels = {"training loss": losses, "Dice on validation scans": looks}
    return curves(panels, x_label="steps")


def adapting(found: Findings) -> Figure:
    """Validation Dice while a batch norm is tuned."""
    lines = {
        f"{domain}, {mode} mode": Line(*zip(*adapted.looks, strict=True))
        for (domain, mode), adapted in found.adapted.items()
    }
    return curves({"Dice on the validation half": lines}, x_label="steps")


def labelled_cases(found: Findings) -> Figure:
    """Dice on test scans against the number of labelled cases."""
    ones = {
        count: summary([score.mean for score in scores]) for count, scores in found.curve.items()
    }
    band = ([one.low for one in ones.values()], [one.high for one in ones.values()])
    line = Line([float(n) for n in ones], [one.mean for one in ones.values()], band)
    panels: Mapping[str, Mapping[str, Line]] = {
        f"Dice on {NEW[0]}": {"normbank's own mode, 95 % interval": line}
    }
    return curves(panels, x_label="labelled cases", log_x=True)


def _qualitative(found: Findings, cases: Cases, place: Place, domain: str) -> dict[str, Picture]:
    """One test scan in every way, as in the paper's figure 2."""
    scan = _typical(found, cases, domain)
    at = _fullest(scan.case.classes)
    images = scan.case.images[at : at + 1]
    network = found.networks[BN]
    own = found.networks[dedicated(domain)]
    closest = found.closest(domain)
    answers: dict[str, NDArray[np.uint8]] = {}
    for title, learned, state in (
        (f"closest state, {bn(closest)}", network, network.states[closest]),
        ("normbank's own mode", network, found.adapted[domain, OWN].state),
        ("dedicated network", own, own.states[domain]),
    ):
        answers[title] = place.bench(learned.backbone).classes(state, images)[0]
    answers["reference"] = scan.case.classes[at]
    grey = images[0] / max(float(np.percentile(images[0], 99)), 1e-6)
    pictures = {f"{scan.name}": Picture(grey)}
    classes = network.backbone.spec.classes
    for title, answer in answers.items():
        pictures[title] = Picture(grey, _structures(answer, classes))
    return pictures


def _typical(found: Findings, cases: Cases, domain: str) -> TestScan:
    """The test scan with the median Dice of the adapted state."""
    scores = found.scores[adapted_row(domain, OWN)]
    order = sorted(range(len(scores)), key=lambda index: scores[index].mean)
    return cases.test(domain)[order[len(order) // 2]]


def _fullest(classes: NDArray[np.uint8]) -> int:
    """The slice that shows most structures, and most of the smallest of them."""
    wanted = [numbers[0] for name in EVALUATED if (numbers := classes_of(name, CLASSES))]
    counts = np.stack([(classes == number).sum((1, 2)) for number in wanted], axis=1)
    shares = counts / np.maximum(counts.max(axis=0), 1)
    return int(np.argmax((counts > 0).sum(1) + shares.mean(1)))


def _structures(answer: NDArray[np.uint8], classes: Sequence[str]) -> NDArray[np.uint8]:
    """Numbers of colours, from 1, in the order of the seven structures."""
    painted = np.zeros(answer.shape, np.uint8)
    for colour, name in enumerate(EVALUATED, start=1):
        painted[np.isin(answer, classes_of(name, classes))] = colour
    return painted

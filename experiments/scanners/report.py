"""What the study of real scanners has found, as Markdown, CSV and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.kit.figures import Bar, Line, curves, grouped_bars, save
from experiments.kit.report import bullets, duration, markdown, number, write_csv
from experiments.kit.stages import Document
from experiments.kit.statistics import Summary, summary
from experiments.scanners.study import MAIN, METHODS, Outcome
from normbank.anatomy import EVALUATED

INTRODUCTION = """# Real scanners

How much a few labelled scans teach: a stored state as it is, what recalibration does without
labels, tuning of the batch norm, normbank's recipe, and, for comparison, all of the network.

Mean 3-D Dice of the seven structures over the test scans, in the network's space (1 mm). In
brackets: 95 % interval of the mean, by bootstrap over scans. Dice is agreement with the references
that came with the scans; each protocol draws the borders its own way.
"""


def write_report(
    out: Path,
    found: Sequence[Outcome],
    probes: Mapping[str, tuple[Document, Document]],
    unchanged: Mapping[str, bool],
    facts: Mapping[str, object],
) -> Path:
    """Write report.md, scans.csv and figures.

    Parameters
    ----------
    found : every method on every fold
    probes : fold -> Dice of every stored state on the training half, and on the test set
    unchanged : stored state -> whether its answers are the same bits afterwards

    Returns
    -------
    report.md
    """
    out.mkdir(parents=True, exist_ok=True)
    _write_scans(out / "scans.csv", found)
    _draw(out / "figures", found)
    parts = [INTRODUCTION, bullets(facts)]
    for scanner in dict.fromkeys(one.fold.scanner for one in found):
        parts += [f"\n## {scanner}\n", _methods(found, scanner), _structures(found, scanner)]
        parts += [_all_folds(found, scanner)]
    parts += ["\n## The nearest state\n", _probes(probes)]
    parts += ["\n## What the stored states answer afterwards\n", _unchanged(unchanged)]
    report = out / "report.md"
    report.write_text("\n".join(part for part in parts if part), encoding="utf-8")
    return report


def _of(
    found: Sequence[Outcome], scanner: str, method: str, *, fold: int | None = 0
) -> list[Outcome]:
    return [
        one
        for one in found
        if one.fold.scanner == scanner
        and one.method == method
        and (fold is None or one.fold.number == fold)
    ]


def _dice(outcomes: Sequence[Outcome]) -> Summary:
    return summary([score.mean for one in outcomes for score in one.scores])


def _distance(outcomes: Sequence[Outcome]) -> float:
    return _mean([mm for one in outcomes for score in one.scores for mm in score.hd95_mm])


def _mean(values: Sequence[float]) -> float:
    """Of what is there; NaN when nothing is."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _methods(found: Sequence[Outcome], scanner: str) -> str:
    rows = []
    for method in METHODS:
        outcomes = _of(found, scanner, method)
        if outcomes:
            dice = _dice(outcomes)
            interval = f"{number(dice.mean)} [{number(dice.low)}, {number(dice.high)}]"
            seconds = duration(sum(one.seconds for one in outcomes))
            rows.append((method, dice.n, interval, number(_distance(outcomes), 2), seconds))
    return markdown(("method", "test scans", "mean Dice", "HD95 mm", "learning"), rows)


def _structures(found: Sequence[Outcome], scanner: str) -> str:
    rows = []
    for method in METHODS:
        scores = [score.dice for one in _of(found, scanner, method) for score in one.scores]
        if scores:
            rows.append((method, *(number(_mean(column)) for column in zip(*scores, strict=True))))
    return markdown(("method", *EVALUATED), rows)


def _all_folds(found: Sequence[Outcome], scanner: str) -> str:
    """The main methods over every fold, where there are several."""
    if max(one.fold.number for one in found if one.fold.scanner == scanner) == 0:
        return ""
    rows = []
    for method in MAIN:
        outcomes = _of(found, scanner, method, fold=None)
        if not outcomes:
            continue
        dice = _dice(outcomes)
        each = ", ".join(number(_dice([one]).mean) for one in outcomes)
        interval = f"{number(dice.mean)} [{number(dice.low)}, {number(dice.high)}]"
        rows.append((method, dice.n, interval, each, number(_distance(outcomes), 2)))
    table = markdown(("method", "test scans", "mean Dice", "each fold", "HD95 mm"), rows)
    return f"Every case a test case once:\n\n{table}"


def _probes(probes: Mapping[str, tuple[Document, Document]]) -> str:
    rows = []
    for fold, (probe, test) in probes.items():
        mine, theirs = (max(scores, key=lambda n: scores[n]) for scores in (probe, test))
        scores = ", ".join(f"{name} {number(value)}" for name, value in probe.items())
        rows.append((fold, mine, theirs, "yes" if mine == theirs else "no", scores))
    columns = ("fold", "by the probe", "by the test set", "equal", "probe")
    return markdown(columns, rows)


def _unchanged(unchanged: Mapping[str, bool]) -> str:
    rows = [(name, "every bit" if same else "CHANGED") for name, same in unchanged.items()]
    return markdown(("state", "the same after all runs"), rows)


def _write_scans(path: Path, found: Sequence[Outcome]) -> None:
    """Every test scan; names of files, no other fact of a scan."""
    distances = [f"{name} HD95 mm" for name in EVALUATED]
    rows = []
    for one in found:
        for score in one.scores:
            far = score.hd95_mm or tuple([float("nan")] * len(EVALUATED))
            rows.append((one.fold.name, one.method, score.scan, score.mean, *score.dice, *far))
    columns = ("fold", "method", "scan", "mean", *EVALUATED, *distances)
    write_csv(path, columns, rows)


def _draw(folder: Path, found: Sequence[Outcome]) -> None:
    groups = {}
    for scanner in dict.fromkeys(one.fold.scanner for one in found):
        summaries = {m: _dice(_of(found, scanner, m)) for m in METHODS}
        groups[scanner] = {
            m: Bar(s.mean, s.low, s.high) for m, s in summaries.items() if not np.isnan(s.mean)
        }
    figure = grouped_bars(groups, title="Test scans of real scanners", y_label="mean Dice")
    save(figure, folder, "scanners")
    panels: dict[str, dict[str, Line]] = {}
    for one in found:
        if one.fold.number == 0 and one.looks:
            steps, dice = zip(*one.looks, strict=True)
            panel = panels.setdefault(f"validation Dice, {one.fold.scanner}", {})
            panel[one.method] = Line(steps, dice)
    if panels:
        save(curves(panels, x_label="step"), folder, "learning")

"""What scanners learnt in turn have left, as Markdown, CSV and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.kit.figures import Line, curves, save
from experiments.kit.folds import Fold
from experiments.kit.report import bullets, markdown, number, write_csv
from experiments.kit.scoring import ScanScore
from experiments.sequence.study import METHODS, Found, Matrix
from normbank.anatomy import EVALUATED

INTRODUCTION = """# One scanner after another

Scanners are learnt in the order of the manifest, each from its labelled scans alone. After every
step the test scans of all scanners so far are segmented again: by normbank with each scanner's own
state, and by one network that is fine-tuned on one scanner after the other. Mean 3-D Dice of the
seven structures over every third slice that shows one, in the network's space.
"""


def backward_transfer(steps: list[list[list[ScanScore]]]) -> float:
    """Mean change of the earlier scanners from their own step to the last one."""
    last = steps[-1]
    changes = [_dice(last[j]) - _dice(steps[j][j]) for j in range(len(last) - 1)]
    return float(np.mean(changes))


def unchanged(steps: list[list[list[ScanScore]]]) -> bool:
    """Whether every scan was answered the same, bit for bit, after every later step."""
    return all(
        [one.answer for one in row[j]] == [one.answer for one in steps[j][j]]
        for j in range(len(steps))
        for row in steps[j:]
    )


def _dice(scores: list[ScanScore]) -> float:
    return float(np.mean([one.mean for one in scores]))


def write_report(
    out: Path, found: Found, folds: Sequence[Fold], facts: Mapping[str, object]
) -> Path:
    """Write report.md, scans.csv and a figure.

    Returns
    -------
    report.md
    """
    names = [fold.scanner for fold in folds]
    parts = [INTRODUCTION, bullets(facts)]
    for method in METHODS:
        steps = found.matrix[method]
        rows = [
            (
                f"{i + 1}. {names[i]}",
                *(number(_dice(one)) for one in row),
                *["–"] * (len(names) - len(row)),
            )
            for i, row in enumerate(steps)
        ]
        same = "every bit" if unchanged(steps) else "no"
        parts += [
            f"\n## {method}\n",
            markdown(("after", *names), rows),
            f"Backward transfer: {backward_transfer(steps):+.4f}. Old answers unchanged: {same}.\n",
        ]
    parts.append("\n## Where each scanner's own state began\n")
    counted = [(len(fold.adapt), len(fold.test)) for fold in folds]
    parts.append(
        markdown(
            ("scanner", "start", "labelled", "test scans"),
            [(n, s, *c) for n, s, c in zip(names, found.starts, counted, strict=True)],
        )
    )
    out.mkdir(parents=True, exist_ok=True)
    _write_scans(out / "scans.csv", found.matrix, names)
    _draw(out / "figures", found.matrix, names)
    report = out / "report.md"
    report.write_text("\n".join(parts), encoding="utf-8")
    return report


def _write_scans(path: Path, matrix: Matrix, names: list[str]) -> None:
    rows = [
        (method, names[i], names[j], one.scan, one.mean, *one.dice, one.answer)
        for method, steps in matrix.items()
        for i, row in enumerate(steps)
        for j, scores in enumerate(row)
        for one in scores
    ]
    write_csv(path, ("method", "after", "scanner", "scan", "mean", *EVALUATED, "answer"), rows)


def _draw(folder: Path, matrix: Matrix, names: list[str]) -> None:
    panels = {
        f"mean Dice, {method}": {
            name: Line(
                tuple(range(j + 1, len(names) + 1)),
                tuple(_dice(row[j]) for row in matrix[method][j:]),
            )
            for j, name in enumerate(names)
        }
        for method in METHODS
    }
    figure = curves(panels, x_label="learnt last", x_marks=names, y_range=(0, 1))
    save(figure, folder, "sequence")

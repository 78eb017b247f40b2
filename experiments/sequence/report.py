"""What scanners learnt in turn have left, as Markdown, CSV and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from experiments.kit.figures import Line, curves, save
from experiments.kit.manifest import Fold
from experiments.kit.tables import bullets, markdown, number, score_columns, write_csv
from experiments.sequence.study import Results
from normbank.anatomy import EVALUATED

INTRODUCTION = """# One scanner after another

Scanners are learnt in the order of the manifest, each from its labelled scans alone. After every
step the test scans of all scanners so far are segmented again: by normbank with each scanner's own
state, learnt by the very function that the service's workers call, and by one network that is
fine-tuned on one scanner after the other. Mean 3-D Dice of the seven structures, each scan
segmented as the service does and compared on its own grid.
"""

COLUMNS = ["method", "after", "scanner", "scan", "mean", *EVALUATED, "answer"]


def scan_frame(results: Results, scanners: Sequence[str]) -> pd.DataFrame:
    """A row per method, step, scanner so far and test scan."""
    records = [
        {
            "method": method,
            "after": scanners[step],
            "scanner": scanner,
            "scan": score.scan,
            "mean": score.mean,
            "answer": score.answer,
            **score_columns(score),
        }
        for method, steps in results.matrix.items()
        for step, row in enumerate(steps)
        for scanner, scores in zip(scanners, row, strict=False)
        for score in scores
    ]
    return pd.DataFrame(records, columns=COLUMNS)


def dice_matrix(scans: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice of one method after each step (rows) on each scanner (columns)."""
    means = scans.groupby(["after", "scanner"], sort=False)["mean"].mean().unstack()
    order = list(dict.fromkeys(scans["after"]))
    return means.loc[order, order]


def backward_transfer(scans: pd.DataFrame) -> float:
    """Mean change of the earlier scanners from their own step to the last one.

    Lopez-Paz and Ranzato, NeurIPS 2017.
    """
    matrix = dice_matrix(scans).to_numpy()
    return float((matrix[-1] - matrix.diagonal())[:-1].mean())


def unchanged(scans: pd.DataFrame) -> bool:
    """Whether every scan was answered the same, bit for bit, after every later step."""
    position = scans.groupby(["after", "scanner"]).cumcount().rename("position")
    return bool((scans.groupby(["scanner", position])["answer"].nunique() == 1).all())


def write_report(
    out: Path, results: Results, folds: Sequence[Fold], settings: Mapping[str, object]
) -> Path:
    """Write report.md, scans.csv and a figure.

    Returns
    -------
    report.md
    """
    scanners = [fold.scanner for fold in folds]
    scans = scan_frame(results, scanners)
    methods = dict(iter(scans.groupby("method", sort=False)))
    starts = [
        {"scanner": f.scanner, "start": s, "labelled": len(f.adapt), "test scans": len(f.test)}
        for f, s in zip(folds, results.starts, strict=True)
    ]
    parts = [INTRODUCTION, bullets(settings)]
    parts += [_method(str(method), group) for method, group in methods.items()]
    parts += ["\n## Where each scanner's own state began\n", markdown(starts)]
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "scans.csv", scans)
    _draw(out / "figures", {str(method): dice_matrix(group) for method, group in methods.items()})
    report = out / "report.md"
    report.write_text("\n".join(parts), encoding="utf-8")
    return report


def _method(method: str, scans: pd.DataFrame) -> str:
    matrix = dice_matrix(scans).map(number)
    matrix.insert(0, "after", [f"{step}. {name}" for step, name in enumerate(matrix.index, 1)])
    same = "every bit" if unchanged(scans) else "no"
    transfer = f"Backward transfer: {backward_transfer(scans):+.4f}."
    return f"\n## {method}\n\n{markdown(matrix)}\n{transfer} Old answers unchanged: {same}.\n"


def _draw(folder: Path, matrices: Mapping[str, pd.DataFrame]) -> None:
    panels = {}
    for method, matrix in matrices.items():
        steps = range(1, len(matrix) + 1)
        panels[f"mean Dice, {method}"] = {
            str(scanner): Line(steps[j:], matrix[scanner].to_list()[j:])
            for j, scanner in enumerate(matrix)
        }
    marks = [str(scanner) for matrix in matrices.values() for scanner in matrix][: len(steps)]
    figure = curves(panels, x_label="learnt last", x_marks=marks, y_range=(0, 1))
    save(figure, folder, "sequence")

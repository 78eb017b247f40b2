"""What the study of real scanners has measured, as Markdown, CSV and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from experiments.kit.figures import Bar, Line, curves, grouped_bars, save
from experiments.kit.tables import (
    bullets,
    duration,
    markdown,
    number,
    score_columns,
    summary,
    write_csv,
)
from experiments.scanners.study import MAIN, MethodResult
from normbank.anatomy import EVALUATED

INTRODUCTION = """# Real scanners

How much a few labelled scans teach: a stored state as it is, what recalibration does without
labels, tuning of the batch norm, normbank's recipe, and, for comparison, all of the network.

Tuning is done by the very function that the service's workers call: probe, tuning, gate, refit and
acceptance. Mean 3-D Dice of the seven structures over the test scans, each segmented as the service
does and compared on its own grid. In brackets: 95 % interval of the mean, by bootstrap over scans.
Dice is agreement with the references that came with the scans; each protocol draws the borders its
own way.
"""

Probes = Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]]
"""fold -> Dice of every stored state on the training set, and on the test set."""


def scan_frame(results: Sequence[MethodResult]) -> pd.DataFrame:
    """A row per fold, method and test scan; names of files, no other fact of a scan."""
    return pd.DataFrame(
        {
            "fold": result.fold.name,
            "method": result.method,
            "scan": score.scan,
            "mean": score.mean,
            **score_columns(score),
        }
        for result in results
        for score in result.scores
    )


def write_report(
    out: Path,
    results: Sequence[MethodResult],
    probes: Probes,
    unchanged: Mapping[str, bool],
    settings: Mapping[str, object],
) -> Path:
    """Write report.md, scans.csv and figures.

    Parameters
    ----------
    results : every method on every fold
    unchanged : stored state -> whether its answers are the same bits afterwards

    Returns
    -------
    report.md
    """
    out.mkdir(parents=True, exist_ok=True)
    scans = scan_frame(results)
    write_csv(out / "scans.csv", scans)
    _draw(out / "figures", scans, results)
    seconds = {(r.fold.name, r.method): r.seconds for r in results}
    parts = [INTRODUCTION, bullets(settings)]
    for scanner, group in by_scanner(scans).items():
        first = group[group["fold"] == f"{scanner}-0"]
        times = {method: s for (fold, method), s in seconds.items() if fold == f"{scanner}-0"}
        parts += [f"\n## {scanner}\n", method_table(first, times), structure_table(first)]
        if group["fold"].nunique() > 1:
            parts += [f"Every case a test case once:\n\n{fold_table(group)}"]
    parts += ["\n## The nearest state\n", _probe_table(probes)]
    parts += ["\n## What the stored states answer afterwards\n", _unchanged_table(unchanged)]
    report = out / "report.md"
    report.write_text("\n".join(parts), encoding="utf-8")
    return report


def by_scanner(scans: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each scanner, whose folds are named after it."""
    names = scans["fold"].str.rsplit("-", n=1).str[0]
    return {str(scanner): group for scanner, group in scans.groupby(names, sort=False)}


def method_table(scans: pd.DataFrame, seconds: Mapping[str, float]) -> str:
    """One fold: Dice, distances and time of every method."""
    table = dice_table(scans)
    table["learning"] = [duration(seconds[method]) for method in table["method"]]
    return markdown(table)


def dice_table(scans: pd.DataFrame) -> pd.DataFrame:
    """Dice with its interval and distances of every method."""
    groups = scans.groupby("method", sort=False)
    rows = [
        (method, (dice := summary(group["mean"])).n, dice.mean_and_interval, _mean_hd95(group))
        for method, group in groups
    ]
    return pd.DataFrame(rows, columns=["method", "test scans", "mean Dice", "HD95 mm"])


def structure_table(scans: pd.DataFrame) -> str:
    """One fold: mean Dice of every structure."""
    means = scans.groupby("method", sort=False)[list(EVALUATED)].mean()
    return markdown(means.map(number).reset_index())


def fold_table(scans: pd.DataFrame) -> str:
    """The main methods over every fold."""
    scans = scans[scans["method"].isin(MAIN)]
    means = scans.groupby(["method", "fold"], sort=False)["mean"].mean().map(number)
    each_fold = means.groupby("method", sort=False).agg(", ".join)
    table = dice_table(scans)
    table.insert(3, "each fold", each_fold.to_list())
    return markdown(table)


def _mean_hd95(scans: pd.DataFrame) -> str:
    """Over scans and structures; a dash where nothing was measured."""
    distances = scans.filter(like="HD95 mm").to_numpy().ravel()
    return number(float(pd.Series(distances, dtype=float).mean()), 2)


def _probe_table(probes: Probes) -> str:
    rows = []
    for fold, (probe, test) in probes.items():
        best = [max(dice, key=lambda name: dice[name]) for dice in (probe, test)]
        dice = ", ".join(f"{name} {number(value)}" for name, value in probe.items())
        rows.append((fold, *best, "yes" if best[0] == best[1] else "no", dice))
    columns = ["fold", "by the probe", "by the test set", "equal", "probe"]
    return markdown(pd.DataFrame(rows, columns=columns))


def _unchanged_table(unchanged: Mapping[str, bool]) -> str:
    answers = ["every bit" if same else "CHANGED" for same in unchanged.values()]
    return markdown(pd.DataFrame({"state": list(unchanged), "the same after all runs": answers}))


def _draw(folder: Path, scans: pd.DataFrame, results: Sequence[MethodResult]) -> None:
    groups = {}
    for scanner, group in by_scanner(scans).items():
        first = group[group["fold"] == f"{scanner}-0"].groupby("method", sort=False)
        dice = {str(method): summary(scores["mean"]) for method, scores in first}
        groups[scanner] = {m: Bar(s.mean, s.low, s.high) for m, s in dice.items() if s.n}
    figure = grouped_bars(groups, title="Test scans of real scanners", y_label="mean Dice")
    save(figure, folder, "scanners")
    panels: dict[str, dict[str, Line]] = {}
    for result in results:
        if result.fold.number == 0 and result.history:
            panel = panels.setdefault(f"validation Dice, {result.fold.scanner}", {})
            panel[result.method] = Line(*zip(*result.history, strict=True))
    if panels:
        save(curves(panels, x_label="step"), folder, "learning")

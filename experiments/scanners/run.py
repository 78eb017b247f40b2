"""`normbank experiment scanners` without its terminal: a manifest in, a folder out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from experiments.kit.folds import folds_of
from experiments.kit.manifest import ManifestRun, facts_of, opened
from experiments.kit.stages import Progress
from experiments.scanners.study import SHORT_NAMES, Scanners
from normbank.errors import InvalidError
from training.manifest import read_manifest


@dataclass(frozen=True)
class ScannersRun(ManifestRun):
    """One call of the command.

    Attributes
    ----------
    rotated : scanners whose every case shall be a test case once
    without : methods that are left out, by their short names
    """

    rotated: Collection[str] = ()
    without: Collection[str] = ()


def run_scanners(run: ScannersRun, progress: Progress | None = None) -> Path:
    """Do what is not done yet, and write the report.

    Returns
    -------
    report.md

    Raises
    ------
    InvalidError
        The manifest cannot be used, or there is no such method.
    OutOfTimeError
        What is done is kept in `out`; run again.
    """
    # Imported here because matplotlib is an extra.
    from experiments.scanners.report import write_report

    unknown = set(run.without) - set(SHORT_NAMES)
    if unknown:
        raise InvalidError(
            f"No method {', '.join(sorted(unknown))}; there are {', '.join(SHORT_NAMES)}.",
            code="unknown_method",
        )
    folds = folds_of(read_manifest(run.manifest), run.rotated)
    if not folds:
        raise InvalidError(
            "No scanner has two rows `adapt` and one row `test`.", code="bad_manifest"
        )
    with opened(run, progress) as at:
        study = Scanners(at.place, at.backbone, at.states, run.plan, at.stages, at.judge)
        before = study.answers(folds[0])
        found = study.run(folds, [SHORT_NAMES[name] for name in run.without])
        whole = [fold for fold in folds if fold.number == 0]
        probes = {fold.name: (study.probes[fold.name], study.on_test(fold)) for fold in whole}
        after = study.answers(folds[0])
    unchanged = {name: before[name] == after[name] for name in before}
    facts = {
        **facts_of(run, at.backbone),
        "whole network": f"the same recipe at {run.plan.rates}, the better one by its "
        "validation half; then again from all",
        "from scratch": run.plan.scratch,
    }
    return write_report(run.out, found, probes, unchanged, facts)

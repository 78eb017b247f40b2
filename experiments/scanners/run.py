"""`normbank experiment scanners` without its terminal: a manifest in, a folder out."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from experiments.kit.manifest import ManifestOptions, folds_of, open_study, report_settings
from experiments.kit.stages import Progress
from experiments.scanners.study import SHORT_NAMES, Scanners
from normbank.errors import InvalidError
from training.manifest import read_manifest


def run_scanners(
    options: ManifestOptions,
    progress: Progress | None = None,
    *,
    rotated: Collection[str] = (),
    without: Collection[str] = (),
) -> Path:
    """Do what is not done yet, and write the report.

    Parameters
    ----------
    rotated : scanners whose every case shall be a test case once
    without : methods that are left out, by their short names

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

    unknown = set(without) - set(SHORT_NAMES)
    if unknown:
        raise InvalidError(
            f"No method {', '.join(sorted(unknown))}; there are {', '.join(SHORT_NAMES)}.",
            code="unknown_method",
        )
    folds = folds_of(read_manifest(options.manifest), rotated)
    if not folds:
        raise InvalidError(
            "No scanner has two rows `adapt` and one row `test`.", code="bad_manifest"
        )
    context = open_study(options, progress)
    study = Scanners(context, options.sizes)
    before = study.answers(folds[0])
    results = study.run(folds, [SHORT_NAMES[name] for name in without])
    probes = {
        fold.name: (study.probes[fold.name], study.on_test(fold))
        for fold in folds
        if fold.number == 0
    }
    after = study.answers(folds[0])
    unchanged = {name: before[name] == after[name] for name in before}
    settings = {
        **report_settings(options, context),
        "whole network": f"the same recipe at {options.sizes.rates}, the better one by its "
        "validation half; then again from all",
        "from scratch": options.sizes.scratch,
    }
    return write_report(options.out, results, probes, unchanged, settings)

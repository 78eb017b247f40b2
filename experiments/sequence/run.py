"""`normbank experiment sequence` without its terminal: a manifest in, a folder out."""

from __future__ import annotations

from pathlib import Path

from experiments.kit.manifest import ManifestOptions, folds_of, open_study, report_settings
from experiments.kit.stages import Progress
from experiments.sequence.study import InTurn
from normbank.errors import InvalidError
from training.manifest import read_manifest


def run_sequence(options: ManifestOptions, progress: Progress | None = None) -> Path:
    """Learn the scanners in the manifest's order, and write the report.

    Returns
    -------
    report.md

    Raises
    ------
    InvalidError
        The manifest cannot be used.
    OutOfTimeError
        What is done is kept in `out`; run again.
    """
    # Imported here because matplotlib is an extra.
    from experiments.sequence.report import write_report

    folds = folds_of(read_manifest(options.manifest))
    if len(folds) < 2:
        raise InvalidError(
            "A sequence needs two scanners with two rows `adapt` and one row `test`.",
            code="bad_manifest",
        )
    context = open_study(options, progress)
    results = InTurn(context, options.sizes).run(folds)
    rate = options.sizes.rates[0]
    settings = {
        **report_settings(options, context),
        "whole network": f"the same length and augmentation at {rate}, all cases",
    }
    return write_report(options.out, results, folds, settings)

"""`normbank experiment sequence` without its terminal: a manifest in, a folder out."""

from __future__ import annotations

from pathlib import Path

from experiments.kit.folds import folds_of
from experiments.kit.manifest import ManifestRun, facts_of, opened
from experiments.kit.stages import Progress
from experiments.sequence.study import InTurn
from normbank.errors import InvalidError
from training.manifest import read_manifest


def run_sequence(run: ManifestRun, progress: Progress | None = None) -> Path:
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

    folds = folds_of(read_manifest(run.manifest))
    if len(folds) < 2:
        raise InvalidError(
            "A sequence needs two scanners with two rows `adapt` and one row `test`.",
            code="bad_manifest",
        )
    own, rate = run.plan.own, run.plan.rates[0]
    with opened(run, progress) as at:
        study = InTurn(at.place, at.backbone, at.states, own, rate, at.stages, at.judge)
        found = study.run(folds)
    facts = {
        **facts_of(run, at.backbone),
        "whole network": f"the same length and augmentation at {rate}, all cases",
    }
    return write_report(run.out, found, folds, facts)

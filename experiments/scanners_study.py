"""`normbank experiment scanners` without its terminal: a manifest in, a folder out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from experiments.folds import folds_of
from experiments.learning import Place
from experiments.report import environment
from experiments.scanners import PLANS, SHORT_NAMES, Scanners
from experiments.scoring import judging
from experiments.stages import Progress, Stages
from experiments.study import work_folder
from models.backbone import SHIPPED, load_backbone
from models.packs import read_states
from normbank.errors import InvalidError
from training.manifest import read_manifest


@dataclass(frozen=True)
class ScannersRun:
    """One call of the command.

    Attributes
    ----------
    manifest : see `training.manifest`; rows of the roles `adapt` and `test`
    rotated : scanners whose every case shall be a test case once
    without : methods that are left out, by their short names
    backbone : folder of a backbone; None: the shipped one
    """

    preset: str
    manifest: Path
    out: Path
    device: torch.device
    precision: torch.dtype
    rotated: Collection[str] = ()
    without: Collection[str] = ()
    backbone: Path | None = None
    budget_s: float | None = None
    workers: int = 0
    command: str = ""


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
    from experiments.scanners_report import write_report

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
    folder = run.backbone or SHIPPED
    backbone = load_backbone(folder)
    states = read_states(folder, backbone)
    place = Place(run.device, run.precision)
    stages = Stages(work_folder(run.out) / "stages", budget_s=run.budget_s, progress=progress)
    with judging(backbone.spec.spacing_mm, run.workers) as judge:
        study = Scanners(place, backbone, states, PLANS[run.preset], stages, judge)
        before = study.answers(folds[0])
        found = study.run(folds, [SHORT_NAMES[name] for name in run.without])
        whole = [fold for fold in folds if fold.number == 0]
        probes = {fold.name: (study.probes[fold.name], study.on_test(fold)) for fold in whole}
        after = study.answers(folds[0])
    unchanged = {name: before[name] == after[name] for name in before}
    facts = {
        "command": f"`{run.command}`",
        "preset": run.preset,
        **environment(run.device, run.precision),
        "backbone": f"{backbone.spec.name}, {backbone.sha256[:12]}",
        "recipe": PLANS[run.preset].own,
        "whole network": f"the same recipe at {PLANS[run.preset].rates}, the better one by its "
        "validation half; then again from all",
        "from scratch": PLANS[run.preset].scratch,
    }
    return write_report(run.out, found, probes, unchanged, facts)

"""`normbank experiment sequence` without its terminal: a manifest in, a folder out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from experiments.figures import Line, curves, save
from experiments.folds import Fold, folds_of
from experiments.learning import Place
from experiments.report import bullets, environment, markdown, number, write_csv
from experiments.scanners import PLANS
from experiments.scoring import ScanScore, judging
from experiments.sequence import METHODS, SHOWN, Found, InTurn, Matrix
from experiments.stages import Progress, Stages
from experiments.study import work_folder
from models.backbone import SHIPPED, load_backbone
from models.packs import read_states
from normbank.anatomy import EVALUATED
from normbank.errors import InvalidError
from training.manifest import read_manifest

INTRODUCTION = f"""# One scanner after another

Scanners are learnt in the order of the manifest, each from its labelled scans alone. After every
step the test scans of all scanners so far are segmented again: by normbank with each scanner's own
state, and by one network that is fine-tuned on one scanner after the other. Mean 3-D Dice of the
seven structures over every {SHOWN}rd slice that shows one, in the network's space.
"""


@dataclass(frozen=True)
class SequenceRun:
    """One call of the command.

    Attributes
    ----------
    manifest : see `training.manifest`; its order of scanners is that of learning
    backbone : folder of a backbone; None: the shipped one
    """

    preset: str
    manifest: Path
    out: Path
    device: torch.device
    precision: torch.dtype
    backbone: Path | None = None
    budget_s: float | None = None
    command: str = ""


def run_sequence(run: SequenceRun, progress: Progress | None = None) -> Path:
    """Do what is not done yet, and write the report.

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
    folds = folds_of(read_manifest(run.manifest))
    if len(folds) < 2:
        raise InvalidError(
            "A sequence needs two scanners with two rows `adapt` and one row `test`.",
            code="bad_manifest",
        )
    folder = run.backbone or SHIPPED
    backbone = load_backbone(folder)
    plan = PLANS[run.preset]
    stages = Stages(work_folder(run.out) / "stages", budget_s=run.budget_s, progress=progress)
    with judging(backbone.spec.spacing_mm, 0) as judge:
        place = Place(run.device, run.precision)
        states = read_states(folder, backbone)
        study = InTurn(place, backbone, states, plan.own, plan.rates[0], stages, judge)
        found = study.run(folds)
    facts = {
        "command": f"`{run.command}`",
        "preset": run.preset,
        **environment(run.device, run.precision),
        "backbone": f"{backbone.spec.name}, {backbone.sha256[:12]}",
        "recipe": plan.own,
        "whole network": f"the same length and augmentation at {plan.rates[0]}, all cases",
    }
    return _write(run.out, found, folds, facts)


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


def _write(out: Path, found: Found, folds: list[Fold], facts: dict[str, object]) -> Path:
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
        name: {
            method: Line(
                tuple(range(j + 1, len(names) + 1)),
                tuple(_dice(row[j]) for row in matrix[method][j:]),
            )
            for method in METHODS
        }
        for j, name in enumerate(names)
    }
    save(curves(panels, x_label="scanners learnt so far"), folder, "sequence")

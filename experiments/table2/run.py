"""`normbank experiment table2` without its terminal: settings in, a folder out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.kit.adaptation import MODES
from experiments.kit.report import environment
from experiments.kit.scoring import judging
from experiments.kit.simulation import Space
from experiments.kit.stages import Progress, Stages, digest
from experiments.kit.training import Place
from experiments.table2.cases import Cases
from experiments.table2.cohort import DOMAINS, plan_cohort
from experiments.table2.presets import CLASSES, Preset
from experiments.table2.study import Table2
from simulate import SCANNERS


class NoLabelMapsError(ValueError):
    """The preset needs label maps and some are not in the folder."""


@dataclass(frozen=True)
class Run:
    """One call of the command.

    Attributes
    ----------
    labelmaps : folder of `head_NN.nii.gz`; not needed where heads are drawn
    out : where the report goes; unfinished and finished work lies in `work`
    budget_s : the run ends after about so long; None: when it is done
    workers : processes beside this one; 0: none
    command : as typed, for the report
    """

    preset: Preset
    labelmaps: Path | None
    out: Path
    device: torch.device
    precision: torch.dtype
    budget_s: float | None = None
    workers: int = 0
    command: str = ""


def run_table2(run: Run, progress: Progress | None = None) -> Path:
    """Do what is not done yet, and write the report.

    Returns
    -------
    report.md

    Raises
    ------
    NoLabelMapsError
    OutOfTimeError
        What is done is kept in `out`; run again.
    """
    # Imported here because matplotlib is an extra.
    from experiments.table2.figures import draw_all
    from experiments.table2.report import write_report

    preset = run.preset
    folder = work_folder(run.out)
    stages = Stages(folder / "stages", budget_s=run.budget_s, progress=progress)
    space = _space(run)
    data = _data_settings(run)
    plans = plan_cohort(preset.counts, preset.anatomies, preset.seed)
    cases = Cases(plans, space, folder / f"scans-{digest(data)}")
    stages.run("scans", data, lambda stage: cases.simulate(stage, run.workers))
    place = Place(run.device, run.precision)
    with judging(preset.spacing_mm, run.workers) as judge:
        found = Table2(preset, data, cases, stages, place, judge).run()
    draw_all(run.out / "figures", found, cases, place)
    return write_report(run.out, found, _facts(run), stages.seconds)


def work_folder(out: Path) -> Path:
    """Made, and hidden from git: checkpoints and scans are no result."""
    folder = out / "work"
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), (folder / ".gitignore").open("x") as file:
        file.write("*\n")
    return folder


def _space(run: Run) -> Space:
    preset = run.preset
    spec = preset.spec("space")
    return Space(
        None if preset.drawn else run.labelmaps,
        preset.spacing_mm,
        preset.window,
        CLASSES,
        spec.slice_axis,
        spec.percentile,
    )


def _data_settings(run: Run) -> dict[str, Any]:
    """All that the scans depend on: heads, scanners, space, seeds."""
    scanners = {name: asdict(SCANNERS[scanner]) for name, scanner in DOMAINS.items()}
    return {
        **run.preset.data_settings(),
        "classes": CLASSES,
        "scanners": scanners,
        "heads": {} if run.preset.drawn else _fingerprints(run),
    }


def _fingerprints(run: Run) -> dict[str, str]:
    """sha256 of every label map that is used.

    Raises
    ------
    NoLabelMapsError
    """
    if run.labelmaps is None:
        raise NoLabelMapsError(f"The preset {run.preset.name} needs --labelmaps FOLDER.")
    names = run.preset.anatomies
    prints = {}
    for name in (*names.training, *names.validation, *names.test):
        path = run.labelmaps / f"{name}.nii.gz"
        if not path.is_file():
            raise NoLabelMapsError(f"There is no {path.name} in the folder of label maps.")
        prints[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return prints


def _facts(run: Run) -> Mapping[str, object]:
    """What a reader needs to judge the numbers and to make them again."""
    preset = run.preset
    counts, learning, adapting = preset.counts, preset.learning, preset.adapting
    spec = preset.spec("n")
    return {
        "command": f"`{run.command}`",
        "preset": preset.name,
        **environment(run.device, run.precision),
        "seed": preset.seed,
        "space": f"{preset.spacing_mm} mm, window {preset.window}, {spec.plane} slices",
        "network": f"U-Net, widths {preset.down} and {preset.up}, {spec.channels} channels",
        "heads": "drawn by code" if preset.drawn else "label maps; no head on two sides",
        "scans per domain": f"{counts.training} training (D1–D3), {counts.dedicated} (D4, D5, "
        f"dedicated), {counts.validation} validation, {counts.test} test; up to {counts.few} + "
        f"{counts.few} labelled ones of a new domain",
        "from scratch": learning,
        "all of a network fine-tuned": adapting.whole,
        **{f"{name} mode": adapting.mode(name, preset.seed) for name in MODES},
    }

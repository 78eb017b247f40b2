"""`normbank experiment table2` without its terminal: options in, a folder out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.kit.environment import environment
from experiments.kit.scans import SimulatedScans
from experiments.kit.scoring import open_scorer
from experiments.kit.simulation import Space
from experiments.kit.stages import Progress, Stages, digest, work_folder
from experiments.kit.training import Runtime
from experiments.table2.design import CLASSES, DOMAINS, MODES, OWN, Preset, plan_cohort
from experiments.table2.study import Table2
from simulate import SCANNERS


class NoLabelMapsError(ValueError):
    """The preset needs label maps and some are not in the folder."""


@dataclass(frozen=True)
class Table2Options:
    """The options of the command.

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


def run_table2(options: Table2Options, progress: Progress | None = None) -> Path:
    """Do what is not done yet, and write the report.

    Returns
    -------
    report.md

    Raises
    ------
    NoLabelMapsError
    OutOfTimeError
        What is done is stored in `out`; run again.
    """
    # Imported here because matplotlib is an extra.
    from experiments.table2.figures import draw_all
    from experiments.table2.report import write_report

    preset, folder = options.preset, work_folder(options.out)
    stages = Stages(folder / "stages", budget_s=options.budget_s, progress=progress)
    data = _data_settings(options)
    planned = plan_cohort(preset.counts, preset.anatomies, preset.seed)
    scans = SimulatedScans(planned, _space(options), folder / f"scans-{digest(data)}")
    stages.run("scans", data, lambda stage: scans.simulate(stage, options.workers))
    runtime = Runtime(options.device, options.precision)
    with open_scorer(preset.spacing_mm, options.workers) as scorer:
        results = Table2(preset, data, scans, stages, runtime, scorer).run()
    draw_all(options.out / "figures", results, scans, runtime)
    return write_report(options.out, results, _report_settings(options), stages.seconds)


def _space(options: Table2Options) -> Space:
    preset = options.preset
    spec = preset.spec("space")
    return Space(
        None if preset.drawn else options.labelmaps,
        preset.spacing_mm,
        preset.window,
        CLASSES,
        spec.slice_axis,
        spec.percentile,
    )


def _data_settings(options: Table2Options) -> dict[str, Any]:
    """All that the scans depend on: heads, scanners, space, seeds."""
    scanners = {name: asdict(SCANNERS[scanner]) for name, scanner in DOMAINS.items()}
    return {
        **options.preset.data_settings(),
        "classes": CLASSES,
        "scanners": scanners,
        "heads": {} if options.preset.drawn else _fingerprints(options),
    }


def _fingerprints(options: Table2Options) -> dict[str, str]:
    """sha256 of every label map that is used.

    Raises
    ------
    NoLabelMapsError
    """
    if options.labelmaps is None:
        raise NoLabelMapsError(f"The preset {options.preset.name} needs --labelmaps FOLDER.")
    names = options.preset.anatomies
    hashes = {}
    for name in (*names.training, *names.validation, *names.test):
        path = options.labelmaps / f"{name}.nii.gz"
        if not path.is_file():
            raise NoLabelMapsError(f"There is no {path.name} in the folder of label maps.")
        hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return hashes


def _report_settings(options: Table2Options) -> Mapping[str, object]:
    """What a reader needs to judge the numbers and to make them again."""
    preset = options.preset
    counts, adapting = preset.counts, preset.adapting
    spec = preset.spec("n")
    return {
        "command": f"`{options.command}`",
        "preset": preset.name,
        **environment(options.device, options.precision),
        "seed": preset.seed,
        "space": f"{preset.spacing_mm} mm, window {preset.window}, {spec.plane} slices",
        "network": f"U-Net, widths {preset.down} and {preset.up}, {spec.channels} channels",
        "heads": "drawn by code" if preset.drawn else "label maps; no head on two sides",
        "scans per domain": f"{counts.training} training (D1–D3), {counts.dedicated} (D4, D5, "
        f"dedicated), {counts.validation} validation, {counts.test} test; up to {counts.few} + "
        f"{counts.few} labelled ones of a new domain",
        "from scratch": preset.training,
        "for three domains": f"{preset.shared_steps} steps",
        "all of a network fine-tuned": adapting.whole,
        **{f"{mode} mode": adapting.recipe(mode, preset.seed) for mode in MODES},
        "refitted on all cases": f"{OWN} mode",
    }

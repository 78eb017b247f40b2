"""What the studies of a user's own scans have in common: their call, and what it opens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from experiments.kit.report import environment
from experiments.kit.scoring import Judge, judging
from experiments.kit.stages import Progress, Stages
from experiments.kit.training import Place
from experiments.scanners.study import PLANS, Plan
from experiments.table2.run import work_folder
from models.backbone import SHIPPED, Backbone, load_backbone
from models.packs import read_states
from models.state import State


@dataclass(frozen=True)
class ManifestRun:
    """One call of a command.

    Attributes
    ----------
    manifest : see `training.manifest`; rows of the roles `adapt` and `test`
    out : where the report goes; finished work lies in `work`
    backbone : folder of a backbone; None: the shipped one
    budget_s : the run ends after about so long; None: when it is done
    command : as typed, for the report
    """

    preset: str
    manifest: Path
    out: Path
    device: torch.device
    precision: torch.dtype
    backbone: Path | None = None
    budget_s: float | None = None
    command: str = ""

    @property
    def plan(self) -> Plan:
        return PLANS[self.preset]


@dataclass(frozen=True)
class Opened:
    """A backbone with its states, where it runs, and where results go."""

    place: Place
    backbone: Backbone
    states: Mapping[str, State]
    stages: Stages
    judge: Judge


@contextmanager
def opened(run: ManifestRun, progress: Progress | None) -> Iterator[Opened]:
    """Load what a call names."""
    folder = run.backbone or SHIPPED
    backbone = load_backbone(folder)
    stages = Stages(work_folder(run.out) / "stages", budget_s=run.budget_s, progress=progress)
    place, states = Place(run.device, run.precision), read_states(folder, backbone)
    with judging(backbone.spec.spacing_mm, 0) as judge:
        yield Opened(place, backbone, states, stages, judge)


def facts_of(run: ManifestRun, backbone: Backbone) -> dict[str, object]:
    """What a reader needs to make the numbers again."""
    return {
        "command": f"`{run.command}`",
        "preset": run.preset,
        **environment(run.device, run.precision),
        "backbone": f"{backbone.spec.name}, {backbone.sha256[:12]}",
        "recipe": run.plan.own,
    }

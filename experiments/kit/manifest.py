"""What studies of a user's own scans share: folds, sizes, options, and what these open."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from experiments.kit.environment import environment
from experiments.kit.recipes import Recipe
from experiments.kit.scans import ManifestScans
from experiments.kit.scoring import ScanScore, score_as_served
from experiments.kit.stages import Progress, Stages, work_folder
from experiments.kit.training import Runtime
from models.backbone import SHIPPED, Backbone, load_backbone
from models.evaluator import Evaluator
from models.packs import read_states
from models.pool import BackbonePool
from models.predict import choose_precision
from models.state import State
from pipeline.networks import Networks
from training.manifest import Row


@dataclass(frozen=True)
class Fold:
    """One way to divide a scanner's cases.

    Attributes
    ----------
    number : 0 is the manifest's own way
    adapt : the labelled cases; the first half is the training set, the second
        the validation set
    test : never looked at before the end
    """

    scanner: str
    number: int
    adapt: tuple[Row, ...]
    test: tuple[Row, ...]

    @property
    def name(self) -> str:
        return f"{self.scanner}-{self.number}"

    @property
    def halves(self) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
        half = (len(self.adapt) + 1) // 2
        return self.adapt[:half], self.adapt[half:]


GRID = "own"
"""In keys of stages: labels are compared on the scans' own grids. Older stages have no such key."""


def file_key(rows: Sequence[Row]) -> list[list[object]]:
    """How keys of stages name the scans that they are about."""
    return [[row.scan.name, row.scan.stat().st_size] for row in rows]


def folds_of(rows: Sequence[Row], rotated: Collection[str] = ()) -> list[Fold]:
    """Every scanner's folds, in the order of the manifest.

    Parameters
    ----------
    rows : those of the roles `adapt` and `test`; others are left out
    rotated : scanners with few cases: each block of as many cases as there are
        test cases is the test block once
    """
    folds = []
    for scanner in dict.fromkeys(row.domain for row in rows):
        adapt = tuple(r for r in rows if r.domain == scanner and r.role == "adapt")
        test = tuple(r for r in rows if r.domain == scanner and r.role == "test")
        if len(adapt) < 2 or not test:
            continue
        folds.append(Fold(scanner, 0, adapt, test))
        if scanner in rotated:
            folds += _rotations(scanner, adapt, test)
    return folds


def _rotations(scanner: str, adapt: tuple[Row, ...], test: tuple[Row, ...]) -> list[Fold]:
    size = len(test)
    blocks = [adapt[start : start + size] for start in range(0, len(adapt) - size + 1, size)]
    return [
        Fold(scanner, number, tuple(r for r in (*adapt, *test) if r not in block), block)
        for number, block in enumerate(blocks, start=1)
    ]


@dataclass(frozen=True)
class Preset:
    """How long everything may learn.

    Attributes
    ----------
    own : normbank's recipe
    scratch : of a network without a past; all steps are taken
    rates : learning rates that the whole network chooses from, by its validation half
    """

    own: Recipe
    scratch: Recipe
    rates: tuple[float, ...] = (1e-3, 3e-4)

    def stage_key(self) -> dict[str, Any]:
        """The preset as keys of stored stages name it."""
        own, scratch = self.own.stage_key(), self.scratch.stage_key()
        return {"own": own, "scratch": scratch, "rates": self.rates}


PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        Recipe(steps=4, validate_every=2, batch_size=2, slice_stride=8),
        scratch=Recipe(steps=4, batch_size=2, learning_rate=2e-3),
    ),
    "cpu": Preset(
        Recipe(steps=100, batch_size=8, validate_every=25),
        scratch=Recipe(steps=200, batch_size=8, learning_rate=2e-3),
    ),
    "full": Preset(
        Recipe(steps=600, batch_size=16, validate_every=50, patience=6),
        scratch=Recipe(steps=2000, batch_size=16, learning_rate=2e-3),
    ),
}


@dataclass(frozen=True)
class ManifestOptions:
    """The options of a command.

    Attributes
    ----------
    manifest : see `training.manifest`; rows of the roles `adapt` and `test`
    out : where the report goes; finished work lies in `work`
    precision : as in `normbank.config.Settings`
    backbone : folder of a backbone; None: the shipped one
    budget_s : the run ends after about so long; None: when it is done
    command : as typed, for the report
    """

    preset: str
    manifest: Path
    out: Path
    device: torch.device
    precision: str
    backbone: Path | None = None
    budget_s: float | None = None
    command: str = ""

    @property
    def sizes(self) -> Preset:
        return PRESETS[self.preset]


@dataclass(frozen=True)
class StudyContext:
    """A backbone with its states, where it runs, and where results go.

    Attributes
    ----------
    runtime : trains and fine-tunes whole networks
    networks : the backbone as the service runs it
    precision : as in `normbank.config.Settings`
    """

    runtime: Runtime
    networks: Networks
    precision: str
    states: Mapping[str, State]
    stages: Stages

    @property
    def backbone(self) -> Backbone:
        return self.networks.backbone

    @cached_property
    def evaluator(self) -> Evaluator:
        """The frozen backbone, for probes."""
        return self.runtime.evaluator(self.backbone)

    @cached_property
    def scans(self) -> ManifestScans:
        return ManifestScans(self.networks)

    def score(
        self, rows: Sequence[Row], state: State, backbone: Backbone | None = None
    ) -> list[ScanScore]:
        """Segment scans as the service does, each on its own grid.

        Parameters
        ----------
        backbone : of a network that was trained here; None: the frozen one
        """
        if backbone is None:
            predictor = self.networks.predict_with(state)
        else:
            predictor = partial(self.runtime.evaluator(backbone).classes, state)
        spec = self.backbone.spec
        return [score_as_served(self.scans.scan(row), predictor, spec) for row in rows]


def open_study(options: ManifestOptions, progress: Progress | None) -> StudyContext:
    """Load what a call names."""
    folder = options.backbone or SHIPPED
    backbone = load_backbone(folder)
    pool = BackbonePool.open(backbone, (), device=str(options.device), precision=options.precision)
    return StudyContext(
        Runtime(options.device, choose_precision(options.precision, options.device)),
        Networks(backbone, pool),
        options.precision,
        read_states(folder, backbone),
        Stages(work_folder(options.out) / "stages", budget_s=options.budget_s, progress=progress),
    )


def report_settings(options: ManifestOptions, context: StudyContext) -> dict[str, object]:
    """What a reader needs to make the numbers again."""
    backbone, predictor = context.backbone, context.networks.current
    return {
        "command": f"`{options.command}`",
        "preset": options.preset,
        **environment(options.device, context.runtime.precision),
        "stored states are answered by": predictor.backend,
        "backbone": f"{backbone.spec.name}, {backbone.sha256[:12]}",
        "recipe": options.sizes.own,
    }

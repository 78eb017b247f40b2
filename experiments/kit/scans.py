"""Labelled scans as a network sees them, each read once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from experiments.kit.scoring import SimulatedScan
from experiments.kit.simulation import (
    PlannedScan,
    Space,
    missing,
    read_slices,
    simulate_all,
    simulate_into,
)
from experiments.kit.stages import Document, Stage
from models.cases import LabelledSlices
from models.state import State
from pipeline.cases import LabelledScan
from pipeline.networks import Networks
from training.labelled import read_row
from training.manifest import Row


class SimulatedScans:
    """Simulated scans by domain and part.

    Parameters
    ----------
    planned : every scan of the study
    folder : of the simulated scans; those that are missing are made
    """

    def __init__(self, planned: Sequence[PlannedScan], space: Space, folder: Path) -> None:
        self._planned, self._space, self._folder = planned, space, folder
        self._read = lru_cache(maxsize=160)(self._read_case)

    def simulate(self, stage: Stage, workers: int) -> Document:
        """Make all files, in several processes."""
        count = len(missing(self._planned, self._folder))
        names = simulate_all(self._planned, self._space, self._folder, workers)
        for done, name in enumerate(names, start=1):
            stage.on_progress(done / count, name)
            stage.pause()
        return {"scans": len(self._planned)}

    def cases(self, domain: str, part: str, count: int | None = None) -> list[LabelledSlices]:
        """The first cases of a part; None: all."""
        return [scan.case for scan in self.scans(domain, part, count)]

    def scans(self, domain: str, part: str, count: int | None = None) -> list[SimulatedScan]:
        """The first cases of a part, with their names."""
        planned = [scan for scan in self._planned if (scan.domain, scan.part) == (domain, part)]
        return [SimulatedScan(p.name, p.anatomy, self._read(p)) for p in planned[:count]]

    def _read_case(self, planned: PlannedScan) -> LabelledSlices:
        if missing([planned], self._folder):
            simulate_into(planned, self._space, self._folder)
        slices = read_slices(planned, self._folder)
        annotated = np.ones(len(self._space.classes), bool)
        return LabelledSlices(slices.images.astype(np.float32), slices.classes, annotated)


class ManifestScans:
    """A user's labelled scans on their own grids, and as a network sees them."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._read = lru_cache(maxsize=32)(self._read_row)
        self._slices: dict[tuple[Path, str], LabelledSlices] = {}

    def scan(self, row: Row) -> LabelledScan:
        """On its own grid."""
        return self._read(row)

    def slices(self, row: Row, state: State) -> LabelledSlices:
        """Every slice of the window around the brain that `state` finds."""
        key = (row.scan, state.sha256)
        if key not in self._slices:
            predictor = self._networks.predict_with(state)
            self._slices[key] = self.scan(row).slices(predictor, self._networks.spec)
        return self._slices[key]

    def outlined(self, row: Row) -> LabelledSlices:
        """The window around the head's outline, before any state is known to fit."""
        return self.scan(row).slices(None, self._networks.spec)

    def _read_row(self, row: Row) -> LabelledScan:
        return read_row(row, self._networks.spec)

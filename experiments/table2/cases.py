"""The study's scans, read from their files when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from experiments.kit.scoring import TestScan
from experiments.kit.simulation import Space, missing, read_slices, simulate_all, simulate_into
from experiments.kit.stages import Document, Stage
from experiments.table2.cohort import TEST, ScanPlan, of_part
from models.cases import LabelledSlices


class Cases:
    """Scans by domain and part.

    Parameters
    ----------
    plans : every scan of the study
    folder : of the simulated scans; those that are missing are made
    """

    def __init__(self, plans: Sequence[ScanPlan], space: Space, folder: Path) -> None:
        self._plans, self._space, self._folder = plans, space, folder
        self._read = lru_cache(maxsize=160)(self._read_one)

    def simulate(self, stage: Stage, workers: int) -> Document:
        """Make all files, in several processes."""
        todo = len(missing(self._plans, self._folder))
        names = simulate_all(self._plans, self._space, self._folder, workers)
        for done, name in enumerate(names, start=1):
            stage.at(done / todo, name)
            stage.pause()
        return {"scans": len(self._plans)}

    def of(self, domain: str, part: str, count: int | None = None) -> list[LabelledSlices]:
        """The first scans of a part; None: all."""
        return [self._read(plan) for plan in of_part(self._plans, domain, part)[:count]]

    def test(self, domain: str) -> list[TestScan]:
        plans = of_part(self._plans, domain, TEST)
        return [TestScan(plan.name, plan.anatomy, self._read(plan)) for plan in plans]

    def _read_one(self, plan: ScanPlan) -> LabelledSlices:
        if missing([plan], self._folder):
            simulate_into(plan, self._space, self._folder)
        held = read_slices(plan, self._folder)
        annotated = np.ones(len(self._space.classes), bool)
        return LabelledSlices(held.images.astype(np.float32), held.classes, annotated)

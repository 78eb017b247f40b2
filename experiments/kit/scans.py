"""A user's labelled scans as a network sees them, each read once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from experiments.kit.scoring import TestScan
from models.bench import Bench
from models.cases import LabelledSlices
from models.state import State
from training.labelled import read_case
from training.manifest import Row


class FramedCases:
    """Scans whose brain is found with a stored state."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._read: dict[tuple[Path, str], LabelledSlices] = {}

    def case(self, row: Row, state: State) -> LabelledSlices:
        """Every slice of the window around the brain that `state` finds."""
        key = (row.scan, state.sha256)
        if key not in self._read:
            predictor = partial(self._bench.classes, state)
            self._read[key] = read_case(row, self._bench.spec, predictor)
        return self._read[key]

    def test(self, row: Row, state: State) -> TestScan:
        return TestScan(row.name, row.name, self.case(row, state))

    def outlined(self, row: Row) -> LabelledSlices:
        """The window around the head's outline, before any state is known to fit."""
        return read_case(row, self._bench.spec)

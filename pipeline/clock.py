"""How long each stage of a segmentation takes."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import numpy.typing as npt

from normbank.imaging.brain import SlicePredictor


class Clock:
    """Seconds from one lap to the next, without those spent in what is timed by itself."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, stage: str) -> None:
        """Count the time since the last lap to a stage."""
        now = perf_counter()
        self.laps[stage] = round(self.laps.get(stage, 0.0) + now - self._last, 4)
        self._last = now

    def timed(self, stage: str, predictor: SlicePredictor) -> SlicePredictor:
        """The same predictor, whose calls are a stage of their own."""

        def predict(
            slices: npt.NDArray[np.float32], *, consecutive: bool = False
        ) -> npt.NDArray[np.uint8]:
            started = perf_counter()
            classes = predictor(slices, consecutive=consecutive)
            took = perf_counter() - started
            self.laps[stage] = round(self.laps.get(stage, 0.0) + took, 4)
            self._last += took
            return classes

        return predict

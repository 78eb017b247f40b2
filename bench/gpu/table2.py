"""Stage 4, the rest: the paper's table 2 at full size, as far as the time goes."""

from __future__ import annotations

import time
from typing import Any

from bench.gpu.scene import Scene
from experiments.kit.stages import OutOfTimeError
from experiments.table2.design import PRESETS
from experiments.table2.run import Table2Options, run_table2


class StageTimes:
    """The progress of the study, and how long each stage took."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.facts: dict[str, Any] = {"stages_s": {}}

    def begin(self, stage: str) -> None:
        self.facts["at"] = stage

    def on_progress(self, fraction: float, message: str) -> None:
        self.facts["share"] = round(fraction, 3)

    def end(self, stage: str, seconds: float, fresh: bool) -> None:
        self.facts["stages_s"][stage] = round(seconds, 1)
        self.scene.keep("table2", self.facts)


def run(scene: Scene) -> None:
    """The preset `full`; in a rehearsal `smoke`. Its work stays behind on the machine."""
    times, began = StageTimes(scene), time.time()
    options = Table2Options(
        PRESETS["smoke" if scene.smoke else "full"],
        scene.pack / "labelmaps",
        scene.work / "table2",
        scene.device,
        scene.precision,
        budget_s=max(1.0, scene.left_s - 5),
        workers=0 if scene.smoke else scene.workers,
    )
    try:
        report = run_table2(options, times)
        times.facts["report"] = report.read_text()
    except OutOfTimeError:
        times.facts["report"] = None
    times.facts["seconds"] = round(time.time() - began, 1)
    scene.keep("table2", times.facts, done=times.facts["report"] is not None or scene.smoke)

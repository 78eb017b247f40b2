"""Stage 4, the rest: the paper's table 2 at full size, as far as the time goes."""

from __future__ import annotations

import time
from typing import Any

from bench.gpu.scene import Scene
from experiments.kit.stages import OutOfTimeError
from experiments.table2.presets import PRESETS
from experiments.table2.run import Run, run_table2


class Told:
    """Hears of the study's stages, and keeps how long each took."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.facts: dict[str, Any] = {"stages_s": {}}

    def begin(self, stage: str) -> None:
        self.facts["at"] = stage

    def at(self, fraction: float, words: str) -> None:
        self.facts["share"] = round(fraction, 3)

    def end(self, stage: str, seconds: float, fresh: bool) -> None:
        self.facts["stages_s"][stage] = round(seconds, 1)
        self.scene.keep("table2", self.facts)


def run(scene: Scene) -> None:
    """The preset `full`; in a rehearsal `smoke`. Its work stays behind on the machine."""
    told, began = Told(scene), time.time()
    study = Run(
        PRESETS["smoke" if scene.smoke else "full"],
        scene.pack / "labelmaps",
        scene.work / "table2",
        scene.device,
        scene.precision,
        budget_s=max(1.0, scene.left_s - 5),
        workers=0 if scene.smoke else scene.workers,
    )
    try:
        report = run_table2(study, told)
        told.facts["report"] = report.read_text()
    except OutOfTimeError:
        told.facts["report"] = None
    told.facts["seconds"] = round(time.time() - began, 1)
    scene.keep("table2", told.facts, done=told.facts["report"] is not None or scene.smoke)

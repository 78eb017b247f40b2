"""Stage 3: the next backbone, trained as `normbank train` would by default."""

from __future__ import annotations

import inspect
import shutil
import tarfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.gpu.scene import Scene
from cli.train import RATE_FROM_NOTHING
from cli.train import train as command
from models.backbone import Backbone
from models.cases import LabelledSlices
from models.evaluator import Evaluator, mean_dice
from models.spec import BackboneSpec
from models.state import State
from normbank.anatomy import EVALUATED, classes_of
from training.families import FAMILIES
from training.heads import draw_case
from training.loader import open_loader
from training.release import release_plan
from training.run import CHECKPOINT, Plan, save_release
from training.run import run as train

STORE_S = 60.0
CALIBRATE_S = 30.0
SCORE_S = 60.0  # kept for the end: scores, and the folder
MARGIN = 0.93  # of the steps that would fit
FILE_LIMIT = 16 * 2**20
TINY: dict[str, Any] = {
    "down": (4, 8, 8, 8),
    "up": (8, 8, 4),
    "spacing_mm": 5.0,
    "window": (48, 56, 40),
}


def run(scene: Scene) -> None:
    """Train for the time there is, keep what came of it, and score it on unseen people."""
    torch.set_num_threads(2 if scene.smoke else 4)
    folder = scene.work / "training"
    folder.mkdir(parents=True, exist_ok=True)
    facts = scene.kept("training")
    facts.pop("error", None)
    _take_up(scene, folder)
    if "steps" not in facts:
        facts |= _calibrate(scene)
        scene.keep("training", facts)
    plan = _plan(scene, facts["steps"])
    began = time.time()
    keeper = _CheckpointKeeper(scene, folder, facts, began)
    score_s = 20.0 if scene.smoke else SCORE_S
    trained = train(
        plan, folder, device=scene.device, precision=scene.precision, workers=scene.workers,
        checkpoint_s=2.0 if scene.smoke else STORE_S, budget_s=max(1.0, scene.left_s - score_s),
        on_progress=keeper,
    )  # fmt: skip
    finished = trained is not None
    facts = keeper.facts | {"finished": finished}
    _bring_back(folder, scene.out)
    if trained is None:  # stored where it ended; a plan of so many steps is done
        done = int(torch.load(folder / CHECKPOINT, weights_only=True)["done"])
        trained = train(
            replace(plan, order=plan.order[:done], kept=0), folder,
            device=scene.device, precision=scene.precision,
        )  # fmt: skip
        assert trained is not None
    release = scene.release
    shutil.rmtree(release, ignore_errors=True)
    save_release(trained, release)
    with tarfile.open(scene.out / "backbone.tar", "w") as tar:
        tar.add(release, "backbone")
    facts["backbone"] = trained.backbone.sha256
    scene.keep("training", facts)
    facts["dice"] = _scores(scene, release)
    scene.keep("training", facts, done=finished)


@dataclass
class _CheckpointKeeper:
    """Hears of every few steps; brings each new checkpoint back, made small."""

    scene: Scene
    folder: Path
    facts: dict[str, Any]
    began: float
    stored: float = 0.0

    def __call__(self, done: int, steps: int, loss: float) -> None:
        path = self.folder / CHECKPOINT
        if not path.exists() or path.stat().st_mtime <= self.stored:
            return
        self.stored = path.stat().st_mtime
        self.facts |= {"done_steps": done, "loss": round(loss, 4)}
        self.facts.setdefault("losses", []).append([done, round(loss, 4)])
        self.facts["seconds"] = round(time.time() - self.began, 1)
        _bring_back(self.folder, self.scene.out)
        self.scene.keep("training", self.facts)


def _plan(scene: Scene, steps: int) -> Plan:
    """`normbank train`'s own defaults, on maps of other people than those that judge."""
    default = {
        name: parameter.default for name, parameter in inspect.signature(command).parameters.items()
    }
    folder = scene.work / "training-maps"
    if not folder.exists():
        folder.mkdir(parents=True)
        for path in scene.maps()[0]:
            (folder / path.name).symlink_to(path.resolve())
    plan = release_plan(
        folder,
        name="v2",
        steps=steps,
        batch_size=4 if scene.smoke else default["batch"],
        learning_rate=RATE_FROM_NOTHING,
        seed=default["seed"],
    )
    if not scene.smoke:
        return plan
    spec = replace(plan.spec, **TINY)
    make = replace(plan.make, spec=spec)  # type: ignore[type-var]
    return replace(plan, spec=spec, make=make, crop=(32, 32), kept=1, warm_up=0)


def _calibrate(scene: Scene) -> dict[str, Any]:
    """How many steps fit: a short training, its rate once the first cases are there."""
    seen: list[tuple[float, int]] = []
    folder = scene.work / "calibration"
    shutil.rmtree(folder, ignore_errors=True)
    budget_s = 4.0 if scene.smoke else CALIBRATE_S
    train(
        _plan(scene, 100_000), folder, device=scene.device, precision=scene.precision,
        workers=scene.workers, budget_s=budget_s,
        on_progress=lambda done, _steps, _loss: seen.append((time.time(), done)),
    )  # fmt: skip
    rate = 1.0  # where there were not even forty steps
    if len(seen) > 1:
        rate = (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])
    left = scene.left_s - (20.0 if scene.smoke else SCORE_S + 20.0)
    steps = max(20, int(MARGIN * rate * left))
    return {"steps_per_s": round(rate, 2), "steps": min(steps, 100) if scene.smoke else steps}


def _take_up(scene: Scene, folder: Path) -> None:
    """A checkpoint that came back from an earlier machine."""
    ours, theirs = folder / CHECKPOINT, scene.out / CHECKPOINT
    if not ours.exists() and theirs.exists():
        shutil.copy2(theirs, ours)


def _bring_back(folder: Path, out: Path) -> None:
    """The newest checkpoint, Adam's moments as bfloat16, if that is small enough to travel."""
    checkpoint = torch.load(folder / CHECKPOINT, weights_only=True, map_location="cpu")
    checkpoint["optimiser"]["state"] = {
        number: {name: _halved(value) for name, value in moments.items()}
        for number, moments in checkpoint["optimiser"]["state"].items()
    }
    draft = folder / "small.draft"
    torch.save(checkpoint, draft)
    if draft.stat().st_size <= FILE_LIMIT:
        shutil.move(draft, out / CHECKPOINT)


def _halved(value: Any) -> Any:
    large = isinstance(value, torch.Tensor) and value.dtype == torch.float32 and value.dim() > 0
    return value.bfloat16() if large else value


@dataclass(frozen=True)
class Unseen:
    """Case number i of people held out: every family on every head."""

    maps: tuple[Path, ...]
    spec: BackboneSpec

    def __call__(self, number: int) -> LabelledSlices:
        family = list(FAMILIES.values())[number % len(FAMILIES)]
        head = self.maps[number // len(FAMILIES) % len(self.maps)]
        return draw_case(head, family, self.spec, 900_000_000 + number)


def _scores(scene: Scene, release: Path) -> dict[str, Any]:
    """Mean Dice on simulated heads of people that nobody trained on: the new one, the shipped."""
    scores = {"new": _score(scene, *scene.backbone(release))}
    if not scene.smoke:
        scores["shipped"] = _score(scene, *scene.backbone())
    return scores


def _score(scene: Scene, backbone: Backbone, states: dict[str, State]) -> dict[str, float]:
    spec = backbone.spec
    judged = {name: classes_of(name, spec.classes) for name in EVALUATED}
    evaluator = Evaluator(backbone, scene.device, scene.precision, judged=judged, batch_slices=16)
    make = Unseen(tuple(scene.maps()[1]), spec)
    names = list(FAMILIES)
    count = 1 if scene.smoke else len(names) * len(make.maps)
    dices: dict[str, list[float]] = {name: [] for name in names}
    with open_loader(make, first=0, workers=scene.workers, ahead=count) as loader:
        for number in range(count):
            case, name = loader.take(), names[number % len(names)]
            case = replace(case, images=case.images.astype(np.float32), consecutive=True)
            if name in states:
                dices[name].append(mean_dice(evaluator.score(states[name], [case])))
    return {name: round(float(np.mean(dice)), 4) for name, dice in dices.items() if dice}

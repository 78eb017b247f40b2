"""Networks trained from scratch or further, the best step kept, resumable between looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from experiments.kit.batches import Draw
from experiments.kit.stages import Document, Stage
from experiments.table2.presets import Learning
from models.backbone import Backbone, freeze
from models.bench import Bench, mean_dice
from models.cases import LabelledSlices
from models.network import UNet
from models.spec import BackboneSpec
from models.state import State
from models.train import Start, Trained, Trainer
from normbank.anatomy import EVALUATED, classes_of

BATCH_SLICES = 24  # per forward pass


@dataclass(frozen=True)
class Place:
    """Where and how networks run."""

    device: torch.device
    precision: torch.dtype

    def bench(self, backbone: Backbone) -> Bench:
        """A network that is judged by the seven structures of the paper."""
        judged = {name: classes_of(name, backbone.spec.classes) for name in EVALUATED}
        return Bench(
            backbone, self.device, self.precision, judged=judged, batch_slices=BATCH_SLICES
        )


@dataclass(frozen=True)
class Learned:
    """A network as a stage leaves it behind.

    Attributes
    ----------
    losses : of every step
    looks : (step, mean validation Dice) in order
    """

    backbone: Backbone
    states: Mapping[str, State]
    losses: tuple[float, ...]
    looks: tuple[tuple[int, float], ...]

    def to_document(self) -> Document:
        return {
            "spec": self.backbone.spec.to_json(),
            "network": dict(self.backbone.network.state_dict()),
            "states": {name: state.rows for name, state in self.states.items()},
            "losses": list(self.losses),
            "looks": [list(look) for look in self.looks],
        }

    @classmethod
    def from_document(cls, document: Document) -> Learned:
        network = UNet(BackboneSpec.from_json(document["spec"]))
        network.load_state_dict(document["network"])
        backbone = freeze(network)
        states = {name: State(rows, backbone.sha256) for name, rows in document["states"].items()}
        looks = tuple((int(step), float(dice)) for step, dice in document["looks"])
        return cls(backbone, states, tuple(document["losses"]), looks)


def learn(
    stage: Stage,
    place: Place,
    spec: BackboneSpec,
    draws: Mapping[str, Draw],
    validation: Mapping[str, Sequence[LabelledSlices]],
    plan: Learning,
    *,
    steps: int,
    seed: int,
    start: Start | None = None,
) -> Document:
    """Train one network; the step that does best on the validation scans is kept.

    Parameters
    ----------
    stage : holds unfinished work
    draws : batches of every domain, which take turns
    validation : scans of the same domains, whose mean Dice decides
    start : a network that is trained further; looked at before any step

    Returns
    -------
    Learned, as a document
    """
    trainer = Trainer(
        spec,
        list(draws),
        steps=steps,
        learning_rate=plan.rate,
        warm_up=plan.warm_up,
        seed=seed,
        device=place.device,
        precision=place.precision,
        start=start,
    )
    looks = _Looks(place, validation, plan.stride)
    if stage.unfinished is not None:
        trainer.restore(stage.unfinished["trainer"])
        looks.restore(stage.unfinished["looks"])
    elif start is not None:
        looks.at(0, trainer.result())
    names = list(draws)
    while trainer.done < steps:
        name = names[trainer.done % len(names)]
        trainer.step(name, *draws[name](plan.batch, trainer.done))
        if trainer.done % plan.look_every == 0 or trainer.done == steps:
            looks.at(trainer.done, trainer.result())
            words = f"loss {trainer.losses[-1]:.3f}, validation Dice {looks.best_dice:.3f}"
            stage.at(trainer.done / steps, words)
            stage.keep({"trainer": trainer.checkpoint(), "looks": looks.to_document()})
    return {**looks.best, "losses": trainer.losses, "looks": looks.history}


class _Looks:
    """Looks at the validation scans, and the best network so far."""

    def __init__(
        self, place: Place, validation: Mapping[str, Sequence[LabelledSlices]], stride: int
    ) -> None:
        self._place = place
        self._cases = {
            name: [case.showing(stride) for case in cases] for name, cases in validation.items()
        }
        self.history: list[list[float]] = []
        self.best: Document = {}
        self.best_dice = -1.0

    def at(self, step: int, trained: Trained) -> None:
        bench = self._place.bench(trained.backbone)
        scores = [
            mean_dice(bench.score(trained.states[name], cases))
            for name, cases in self._cases.items()
        ]
        dice = sum(scores) / len(scores)
        self.history.append([step, dice])
        if dice > self.best_dice:
            self.best_dice = dice
            self.best = Learned(trained.backbone, trained.states, (), ()).to_document()

    def to_document(self) -> Document:
        return {"history": self.history, "best": self.best, "best_dice": self.best_dice}

    def restore(self, document: Document) -> None:
        self.history, self.best = document["history"], document["best"]
        self.best_dice = document["best_dice"]

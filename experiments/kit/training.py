"""All weights of a network: trained from scratch or fine-tuned, resumable between validations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from experiments.kit.batches import DrawBatch
from experiments.kit.recipes import Training
from experiments.kit.stages import Document, Stage
from models.backbone import Backbone, freeze
from models.cases import LabelledSlices
from models.evaluator import Evaluator, mean_dice
from models.network import UNet
from models.reproducible import reproducible
from models.spec import BackboneSpec
from models.state import State
from models.train import Start, Trained, Trainer
from normbank.anatomy import EVALUATED, classes_of

BATCH_SLICES = 24  # per forward pass

OnProgress = Callable[[float, str], None]
"""(fraction, message); may raise to end the run."""


@dataclass(frozen=True)
class Runtime:
    """Where and how networks run."""

    device: torch.device
    precision: torch.dtype

    def evaluator(self, backbone: Backbone) -> Evaluator:
        """A network that is evaluated on the seven structures of the paper."""
        judged = {name: classes_of(name, backbone.spec.classes) for name in EVALUATED}
        return Evaluator(
            backbone, self.device, self.precision, judged=judged, batch_slices=BATCH_SLICES
        )


@dataclass(frozen=True)
class TrainedNetwork:
    """A network as a stage stores it.

    Attributes
    ----------
    losses : of every step
    history : validation points, (step, mean Dice), in order
    """

    backbone: Backbone
    states: Mapping[str, State]
    losses: tuple[float, ...] = ()
    history: tuple[tuple[int, float], ...] = ()

    def to_document(self) -> Document:
        """The network, its states and its curves; keys as in the stages stored so far."""
        return {
            "spec": self.backbone.spec.to_json(),
            "network": dict(self.backbone.network.state_dict()),
            "states": {name: state.rows for name, state in self.states.items()},
            "losses": list(self.losses),
            "looks": [list(point) for point in self.history],
        }

    @classmethod
    def from_document(cls, document: Document) -> TrainedNetwork:
        network = UNet(BackboneSpec.from_json(document["spec"]))
        network.load_state_dict(document["network"])
        backbone = freeze(network)
        states = {name: State(rows, backbone.sha256) for name, rows in document["states"].items()}
        history = tuple((int(step), float(dice)) for step, dice in document["looks"])
        return cls(backbone, states, tuple(document["losses"]), history)


@dataclass(frozen=True)
class TrainingResult:
    """The network of the last step and, where there is a validation set, the best one."""

    last: Trained
    best: Document
    history: list[list[float]]

    def to_document(self) -> Document:
        """The best network with its curves; see `TrainedNetwork.from_document`."""
        return {**self.best, "losses": list(self.last.losses), "looks": self.history}


def train(
    runtime: Runtime,
    spec: BackboneSpec,
    batches: Mapping[str, DrawBatch],
    training: Training,
    *,
    seed: int = 0,
    start: Start | None = None,
    validation: Mapping[str, Sequence[LabelledSlices]] | None = None,
    on_progress: OnProgress = lambda _fraction, _message: None,
    checkpoints: Stage | None = None,
) -> TrainingResult:
    """Train all weights of a network; `start` makes it a fine-tuning.

    Parameters
    ----------
    batches : of every domain; the domains take turns
    start : the network and states to go on from, validated before any step
    validation : scans of the same domains, whose mean Dice selects the best step
    checkpoints : holds unfinished work between validations; None: nothing is kept
    """
    trainer = Trainer(
        spec,
        list(batches),
        steps=training.steps,
        learning_rate=training.learning_rate,
        warm_up=training.warm_up,
        seed=seed,
        device=runtime.device,
        precision=runtime.precision,
        start=start,
    )
    points = _Validation(runtime, validation or {}, training.slice_stride)
    if checkpoints is not None and checkpoints.unfinished is not None:
        trainer.restore(checkpoints.unfinished["trainer"])
        points.restore(checkpoints.unfinished["looks"])
    elif start is not None:
        points.add(0, trainer)
    names = list(batches)
    while trainer.done < training.steps:
        name = names[trainer.done % len(names)]
        with reproducible(runtime.device):
            trainer.step(name, *batches[name](training.batch_size, trainer.done))
        if trainer.done % training.validate_every == 0 or trainer.done == training.steps:
            points.add(trainer.done, trainer)
            message = f"loss {trainer.losses[-1]:.3f}{points.message}"
            on_progress(trainer.done / training.steps, message)
            if checkpoints is not None:
                unfinished = {"trainer": trainer.checkpoint(), "looks": points.to_document()}
                checkpoints.keep(unfinished)
    return TrainingResult(trainer.result(), points.best, points.history)


class _Validation:
    """Validation points, and the best network so far."""

    def __init__(
        self, runtime: Runtime, cases: Mapping[str, Sequence[LabelledSlices]], slice_stride: int
    ) -> None:
        self._runtime = runtime
        self._cases = {
            name: [case.showing(slice_stride) for case in domain] for name, domain in cases.items()
        }
        self.history: list[list[float]] = []
        self.best: Document = {}
        self.best_dice = -1.0

    @property
    def message(self) -> str:
        return f", validation Dice {self.best_dice:.3f}" if self.history else ""

    def add(self, step: int, trainer: Trainer) -> None:
        if not self._cases:
            return
        trained = trainer.result()
        evaluator = self._runtime.evaluator(trained.backbone)
        scores = [
            mean_dice(evaluator.score(trained.states[name], cases))
            for name, cases in self._cases.items()
        ]
        dice = sum(scores) / len(scores)
        self.history.append([step, dice])
        if dice > self.best_dice:
            self.best_dice = dice
            self.best = TrainedNetwork(trained.backbone, trained.states).to_document()

    def to_document(self) -> Document:
        return {"history": self.history, "best": self.best, "best_dice": self.best_dice}

    def restore(self, document: Document) -> None:
        self.history, self.best = document["history"], document["best"]
        self.best_dice = document["best_dice"]

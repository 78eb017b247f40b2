"""One training of the study, from the scans that were made for all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from experiments.recipe.cases import SPEC, Scans
from experiments.recipe.score import Network, domain_of, turned, with_neighbours
from models.augment import augment
from models.cases import LabelledSlices, structures_shown
from models.spec import BackboneSpec
from models.train import Trained, Trainer
from training.families import FAMILIES, turns

CROPS = {"axial": (72, 88), "coronal": (72, 72)}  # a brain, as close as it fits
ALONE = 0.1  # share of the slices that are shown in place of their neighbours too
DECAY = 0.99
LABELLER = "sim-t1w-3t"  # whose state labels the real scans
SURE = 0.9  # probability from which on a label of our own is believed
UNSURE = 255
REAL_EVERY = 5


@dataclass(frozen=True)
class Variant:
    """What one run changes.

    Attributes
    ----------
    inputs : slices that the network sees at once
    planes : every family has a domain in each
    real : self-training on unlabelled scans in the second half: `shared`, in
        the state that labelled them; `own`, in a domain of their own; empty: none
    """

    name: str
    inputs: int = 1
    planes: tuple[str, ...] = ("axial",)
    real: str = ""
    batch_size: int = 8
    learning_rate: float = 1e-2
    steps: int = 3600
    seed: int = 0

    @property
    def spec(self) -> BackboneSpec:
        return replace(SPEC, inputs=self.inputs)


@dataclass(frozen=True)
class Learnt:
    """What a run leaves.

    Attributes
    ----------
    last : of the last step
    averaged : the running average of the steps
    seconds : CPU time of the training
    """

    last: Trained
    averaged: Trained
    seconds: float


class Source:
    """Batches of one domain.

    Parameters
    ----------
    chosen : which of the scans
    """

    def __init__(self, scans: Scans, chosen: Sequence[int], plane: str, inputs: int) -> None:
        self._cases = []
        for number in chosen:
            case = LabelledSlices(
                turned(scans.images[number], plane),  # type: ignore[arg-type]
                turned(scans.classes[number], plane),  # type: ignore[arg-type]
                np.ones(len(SPEC.classes), bool),
            )
            counted = replace(case, classes=np.where(case.classes == UNSURE, 0, case.classes))
            weights = structures_shown(counted).sum(1) + 1.0
            self._cases.append((case, weights / weights.sum()))
        self._crop, self._inputs = CROPS[plane], inputs

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """As `training.pool.Pool` does, with neighbours."""
        images, classes = [], []
        for _ in range(count):
            case, weights = self._cases[rng.integers(len(self._cases))]
            pick = rng.choice(len(weights), size=1, p=weights)
            inputs = 1 if self._inputs > 1 and rng.random() < ALONE else self._inputs
            starts = [
                rng.integers(n - w + 1)
                for n, w in zip(case.images.shape[1:], self._crop, strict=True)
            ]
            rows, columns = (slice(s, s + w) for s, w in zip(starts, self._crop, strict=True))
            flip = slice(None, None, -1) if rng.random() < 0.5 else slice(None)
            shown = with_neighbours(case.images, pick, inputs)[0][:, rows, columns][:, flip]
            images.append(np.broadcast_to(shown, (self._inputs, *self._crop)).astype(np.float32))
            classes.append(case.classes[pick[0], rows, columns][flip].astype(np.int64))
        annotated = torch.ones(count, len(SPEC.classes), dtype=torch.bool)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(classes)), annotated


class StudyTrainer(Trainer):
    """Its loss leaves out what is `UNSURE`, and is quicker where all is annotated."""

    def _loss(self, logits: Tensor, classes: Tensor, annotated: Tensor) -> Tensor:
        count = logits.shape[1]
        log_probs = torch.log_softmax(logits.float(), 1)
        sure = classes != UNSURE
        numbers = classes.where(sure, 0)
        picked = log_probs.gather(1, numbers[:, None])[:, 0] * sure
        probs = log_probs.exp() * sure[:, None]
        flat = numbers[sure]
        overlap = torch.zeros(count).index_add(0, flat, picked.exp()[sure])
        wanted = torch.bincount(flat, minlength=count)
        size = probs.sum((0, 2, 3)) + wanted
        present = wanted > 0
        present[0] = False
        dice = (2 * overlap / size)[present].mean() if present.any() else torch.ones(())
        return (1 - dice) - 0.5 * picked.sum() / sure.sum().clamp_min(1)

    def copy_state(self, source: str, target: str) -> None:
        """Let one domain go on from another's present state."""
        self._learners[target].restore(self._learners[source].tensors())


def order(variant: Variant) -> list[str]:
    """Which domain each step trains; the planes take turns."""
    shares = {name: family.share for name, family in FAMILIES.items()}
    families = turns(shares, -(-variant.steps // len(variant.planes)))
    return [domain_of(f, plane) for f in families for plane in variant.planes][: variant.steps]


def learn(variant: Variant, train: Scans, real: Scans) -> Learnt:
    """Train a variant on one thread.

    Parameters
    ----------
    real : without labels; only looked at if the variant wants them
    """
    torch.set_num_threads(1)
    domains = [domain_of(f, plane) for f in FAMILIES for plane in variant.planes]
    sources = {
        domain_of(f, plane): Source(
            train, [n for n, d in enumerate(train.domains) if d == f], plane, variant.inputs
        )
        for f in FAMILIES
        for plane in variant.planes
    }
    own = {"own": "cc0", "shared": LABELLER}.get(variant.real)
    trainer = StudyTrainer(
        variant.spec,
        [*domains, "cc0"] if variant.real == "own" else domains,
        steps=variant.steps,
        learning_rate=variant.learning_rate,
        warm_up=min(100, variant.steps // 10),
        seed=variant.seed,
        precision=torch.bfloat16,
        decay=DECAY,
    )
    rng = np.random.default_rng([variant.seed, 1])
    random = torch.Generator().manual_seed(variant.seed)
    began, pseudo = time.process_time(), None
    for name in order(variant):
        if own and pseudo is None and trainer.done >= variant.steps // 2:
            scans = labelled(trainer, real, variant)
            pseudo = Source(scans, range(len(scans.domains)), "axial", variant.inputs)
            if variant.real == "own":
                trainer.copy_state(LABELLER, "cc0")
        if own and pseudo is not None and trainer.done % REAL_EVERY == 0:
            images, classes, annotated = pseudo.draw(variant.batch_size, rng)
            images, classes = augment(images, classes, random)
            trainer.step(own, images, classes, annotated)
        else:
            trainer.step(name, *sources[name].draw(variant.batch_size, rng))
        if trainer.done % 100 == 0:
            print(variant.name, trainer.done, f"{np.mean(trainer.losses[-100:]):.4f}", flush=True)
    seconds = time.process_time() - began
    return Learnt(trainer.result(), trainer.result(averaged=True), seconds)


def labelled(trainer: Trainer, scans: Scans, variant: Variant) -> Scans:
    """Real scans with labels of the averaged network, where it is sure."""
    network = Network(trainer.result(averaged=True), "axial", torch.bfloat16)
    classes = np.empty(scans.images.shape, np.uint8)
    for number, volume in enumerate(scans.images):
        probs = torch.from_numpy(network.scores(volume, LABELLER)).softmax(1)
        best = probs.max(1)
        classes[number] = torch.where(best.values > SURE, best.indices, UNSURE).numpy()
    return replace(scans, classes=classes)

"""Learning a new domain from a few labelled cases, convolutions frozen.

The method is part B, steps 3 and 4, of Karani et al., MICCAI 2018, section 2:
start from the closest stored state (`models.nearest`), tune its private
tensors, keep what does best on the validation half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.augment import augment, random_crops
from models.bank import DomainParameters
from models.cases import Sampler, SlicedCase, frame_of
from models.evaluator import Evaluator, OnProgress, mean_dice
from models.losses import dice_cross_entropy
from models.normalise import TrainableState
from models.reproducible import reproducible
from models.state import State


@dataclass(frozen=True)
class ValidationPoint:
    """Mean Dice on the validation half after some steps."""

    step: int
    dice: float


@dataclass(frozen=True)
class Adaptation:
    """What a run has found.

    Attributes
    ----------
    state : the best one; the start itself when nothing was better
    history : every validation point, the first before any step
    """

    state: State
    history: tuple[ValidationPoint, ...]

    @property
    def best_step(self) -> int:
        """When the state was at its best; 0: the start was."""
        return self._best.step

    @property
    def best_dice(self) -> float:
        """What `state` reached on the validation half."""
        return self._best.dice

    @property
    def _best(self) -> ValidationPoint:
        return max(self.history, key=lambda point: (point.dice, -point.step))


@dataclass(frozen=True)
class Tuning:
    """How the private tensors are tuned.

    Attributes
    ----------
    seed : the same seed on the same device gives the same state
    steps : at most; the learning rate falls to 0 over them as a cosine
    batch_size : slices per step
    learning_rate : Adam's, at the start
    augmented : mirror the slices at random, vary contrast and noise
    head : learn a last 1×1 convolution of the domain's own along
    adapters : learn 1×1 convolutions parallel to the shared ones along
    validate_every : steps between two validation points
    patience : validation points without progress before early stopping
    stride : a validation scores every n-th slice, see `Evaluator.excerpt`
    crop : pixels (H, W) of the part of each slice that a step sees
    """

    seed: int = 0
    steps: int = 100
    batch_size: int = 8
    learning_rate: float = 1e-2
    augmented: bool = True
    head: bool = True
    adapters: bool = True
    validate_every: int = 25
    patience: int = 3
    stride: int = 4
    crop: tuple[int, int] = (144, 160)


class Learner(Protocol):
    """What is tuned: the private tensors of a domain, or whatever is compared with them."""

    @property
    def parameters(self) -> list[Tensor]: ...

    def logits(self, images: Tensor) -> Tensor: ...


class DomainLearner:
    """A domain's private tensors, with the frozen network of an evaluator.

    Parameters
    ----------
    start : copied, never changed
    tuning : says what is learnt
    """

    def __init__(self, evaluator: Evaluator, start: State, tuning: Tuning) -> None:
        self._evaluator = evaluator
        head = evaluator.backbone.head if tuning.head else None
        self._state = TrainableState(
            start, evaluator.spec, evaluator.device, head, adapters=tuning.adapters
        )

    @property
    def parameters(self) -> list[Tensor]:
        return self._state.parameters

    def logits(self, images: Tensor) -> Tensor:
        parameters = DomainParameters(self._state, self._state.head, self._state.adapters)
        return self._evaluator.forward(images, parameters)

    def snapshot(self) -> State:
        """The present values."""
        return self._state.snapshot()


class TuningRun:
    """Steps of one tuning on labelled cases.

    Batches are normalised by their own statistics, whose running mean becomes
    the state's, as in the initial training.

    Parameters
    ----------
    learner : changed in place
    cases : what it learns from
    """

    def __init__(
        self,
        learner: Learner,
        cases: Sequence[SlicedCase],
        tuning: Tuning,
        device: torch.device,
    ) -> None:
        self._learner, self._tuning, self._device = learner, tuning, device
        self._sampler = Sampler(cases, tuning.seed)
        self._frame = frame_of(cases)
        self._random = torch.Generator().manual_seed(tuning.seed + 1)
        self._optimiser = torch.optim.Adam(learner.parameters, lr=tuning.learning_rate)
        self.done = 0

    def step(self) -> float:
        """One step; the loss before it."""
        tuning = self._tuning
        falling = (1 + math.cos(math.pi * self.done / tuning.steps)) / 2
        for group in self._optimiser.param_groups:
            group["lr"] = tuning.learning_rate * falling
        images, classes, annotated = self._sampler.draw(tuning.batch_size)
        rows, columns = self._frame
        images, classes = images[:, :, rows, columns], classes[:, rows, columns]
        images, classes = random_crops(images, classes, tuning.crop, self._random)
        if tuning.augmented:
            images, classes = augment(images, classes, self._random)
        classes, annotated = classes.to(self._device), annotated.to(self._device)
        with reproducible(self._device):
            loss = dice_cross_entropy(self._learner.logits(images), classes, annotated)
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self.done += 1
        return float(loss.detach())


def adapt(
    evaluator: Evaluator,
    start: State,
    training: Sequence[SlicedCase],
    validation: Sequence[SlicedCase],
    tuning: Tuning,
    *,
    on_progress: OnProgress = lambda _progress, _step: None,
) -> Adaptation:
    """Tune the private tensors of one new state on one half, judged by the other.

    Parameters
    ----------
    evaluator : the frozen network
    start : copied, never changed
    training, validation : the two halves of the labelled cases

    Returns
    -------
    Adaptation
        Its state is never worse than `start` on the validation half.
    """
    stopping = EarlyStopping(
        evaluator, start, [evaluator.excerpt(case, tuning.stride) for case in validation]
    )
    learner = DomainLearner(evaluator, start, tuning)
    run = TuningRun(learner, training, tuning, evaluator.device)
    while run.done < tuning.steps:
        on_progress(run.done / tuning.steps, f"tuning, validation Dice {stopping.best_dice:.3f}")
        run.step()
        if run.done % tuning.validate_every and run.done != tuning.steps:
            continue
        stopping.validate(run.done, learner.snapshot())
        if run.done - stopping.best_step >= tuning.patience * tuning.validate_every:
            break
    return Adaptation(stopping.best, tuple(stopping.history))


def refit(
    evaluator: Evaluator,
    start: State,
    cases: Sequence[SlicedCase],
    tuning: Tuning,
    *,
    on_progress: OnProgress = lambda _progress, _step: None,
) -> State:
    """Tune once more, on every labelled case, for all steps of the tuning.

    Where `adapt` stopped is no measure here: twice the cases overfit later,
    and a run that ends before its learning rate has fallen ends on a rough
    state.

    Parameters
    ----------
    start : the state that `adapt` started from
    cases : both halves
    """
    learner = DomainLearner(evaluator, start, tuning)
    run = TuningRun(learner, cases, tuning, evaluator.device)
    while run.done < tuning.steps:
        on_progress(run.done / tuning.steps, "learning from all cases")
        run.step()
    return learner.snapshot()


class EarlyStopping:
    """Validation points, and the best state so far."""

    def __init__(self, evaluator: Evaluator, start: State, cases: Sequence[SlicedCase]) -> None:
        self._evaluator = evaluator
        self._cases = cases
        self.history: list[ValidationPoint] = []
        self.best, self.best_dice, self.best_step = start, -1.0, 0
        self.validate(0, start)

    def validate(self, step: int, state: State) -> None:
        """Score a state on the validation half, and keep it if it is the best so far."""
        dice = mean_dice(self._evaluator.score(state, self._cases))
        self.history.append(ValidationPoint(step, dice))
        if dice > self.best_dice:
            self.best, self.best_dice, self.best_step = state, dice, step

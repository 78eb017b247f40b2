"""Learning a new domain from a few labelled cases, convolutions frozen.

The method is part B of Karani et al., MICCAI 2018, section 2: find the stored
state that does best on the new domain's training half, start from it, tune the
batch norm alone, keep what does best on the validation half.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.augment import augment
from models.backbone import Backbone
from models.bank import private, scale_shift_relu
from models.cases import LabelledSlices, Sampler, frame_of
from models.dice import dice_scores
from models.losses import dice_cross_entropy
from models.network import Normalise, UNet
from models.normalise import TrainableState
from models.spec import Layer
from models.state import State

Report = Callable[[float, str], None]
"""(progress 0 to 1, step in words); may raise to end the run."""


@dataclass(frozen=True)
class Candidate:
    """How one stored state does on the training half.

    Attributes
    ----------
    ref : its name
    dice : mean over the judged structures and the cases
    by_name : mean over the cases of each judged structure that has a score
    """

    ref: str
    dice: float
    by_name: Mapping[str, float]


@dataclass(frozen=True)
class Look:
    """One look at the validation half."""

    step: int
    dice: float


@dataclass(frozen=True)
class Adaptation:
    """What a run has found.

    Attributes
    ----------
    state : the best one; the start itself when nothing was better
    history : every look at the validation half, the first before any step
    """

    state: State
    history: tuple[Look, ...]

    @property
    def best_step(self) -> int:
        """When the state was at its best; 0: the start was."""
        return max(self.history, key=lambda look: (look.dice, -look.step)).step


class Bench:
    """A frozen network on a device, for scoring and tuning states.

    Parameters
    ----------
    backbone : copied to the device, never changed
    device, precision : where and how the convolutions run
    judged : structures whose Dice counts, each with its class numbers, which
        are judged as one; empty: every class by itself
    batch_slices : slices per forward pass when scoring
    """

    def __init__(
        self,
        backbone: Backbone,
        device: torch.device,
        precision: torch.dtype,
        *,
        judged: Mapping[str, Sequence[int]] | None = None,
        batch_slices: int = 8,
    ) -> None:
        self.spec = backbone.spec
        self.backbone = backbone
        self.device = device
        self._precision = precision
        own = {name: (number,) for number, name in enumerate(self.spec.classes) if number}
        self._judged: Mapping[str, Sequence[int]] = judged or own
        self._batch_slices = batch_slices
        network = copy.deepcopy(backbone.network).to(device)
        self._network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor, normalise: Normalise, head: Tensor | None = None) -> Tensor:
        """N 1 H W to logits N K H W, in the bench's precision."""
        return self.through(self._network, images, normalise, head)

    def through(
        self, network: UNet, images: Tensor, normalise: Normalise, head: Tensor | None = None
    ) -> Tensor:
        """The same with any network, in the bench's precision and on its device."""
        images = images.to(self.device).to(memory_format=torch.channels_last)
        mixed = self._precision != torch.float32
        with torch.autocast(self.device.type, self._precision, enabled=mixed):
            return network(images, normalise, head)  # type: ignore[no-any-return]

    @property
    def judged(self) -> tuple[str, ...]:
        """Names of the columns of `score`."""
        return tuple(self._judged)

    def score(self, state: State, cases: Sequence[LabelledSlices]) -> NDArray[np.float64]:
        """3-D Dice of every case and judged structure, (cases, J).

        NaN where a structure is not annotated, or empty in answer and reference.
        """
        rows = []
        for case in cases:
            answer = np.concatenate([self.answer(state, b) for b in self._batches(case)])
            rows.append(self.compare(answer, case))
        return np.stack(rows)

    def compare(self, answer: NDArray[np.uint8], case: LabelledSlices) -> NDArray[np.float64]:
        """3-D Dice of one answer (N H W classes) for each judged structure, (J,)."""
        merged = np.zeros(len(self.spec.classes), np.uint8)
        known = np.zeros(len(self._judged) + 1, bool)
        for place, numbers in enumerate(self._judged.values(), start=1):
            merged[list(numbers)] = place
            known[place] = case.annotated[list(numbers)].all()
        return dice_scores(merged[answer], merged[case.classes], known)[1:]

    def _batches(self, case: LabelledSlices) -> list[Tensor]:
        return list(torch.split(torch.from_numpy(case.images)[:, None], self._batch_slices))

    @torch.inference_mode()
    def answer(self, state: State, images: Tensor) -> NDArray[np.uint8]:
        """Classes N H W of slices N 1 H W."""
        own = private(state, self.backbone, self.device)
        return self.forward(images, *own).argmax(1).to("cpu", torch.uint8).numpy()


def mean_dice(scores: NDArray[np.float64]) -> float:
    """Mean over classes, then over cases; NaN entries do not count."""
    per_case = [row[~np.isnan(row)].mean() for row in scores if not np.isnan(row).all()]
    return float(np.mean(per_case)) if per_case else 0.0


def nearest(
    bench: Bench,
    states: Mapping[str, State],
    cases: Sequence[LabelledSlices],
    *,
    stride: int = 1,
    report: Report = lambda _progress, _step: None,
) -> tuple[Candidate, ...]:
    """Score every stored state on the labelled training half.

    Parameters
    ----------
    states : by name; at least one
    cases : the training half
    stride : look at every n-th slice

    Returns
    -------
    best first; equal scores in the order of their names
    """
    sparse = [case.showing(stride) for case in cases]
    candidates = []
    for number, (ref, state) in enumerate(sorted(states.items())):
        report(number / len(states), f"probing {ref}")
        scores = bench.score(state, sparse)
        by_name = dict(zip(bench.judged, _mean_over_cases(scores), strict=True))
        known = {name: dice for name, dice in by_name.items() if not math.isnan(dice)}
        candidates.append(Candidate(ref, mean_dice(scores), known))
    return tuple(sorted(candidates, key=lambda c: -c.dice))


@dataclass(frozen=True)
class Tuning:
    """How the private tensors are tuned.

    Attributes
    ----------
    seed : the same seed on the same device gives the same state
    steps : at most; the learning rate falls to 0 over them as a cosine
    batch_size : slices per step
    learning_rate : Adam's, at the start
    augmented : vary pose, contrast and noise of the slices
    head : learn a last 1×1 convolution of the domain's own along
    validate_every : steps between two looks at the validation half
    patience : looks without progress before the run ends
    stride : look at every n-th validation slice
    """

    seed: int = 0
    steps: int = 100
    batch_size: int = 4
    learning_rate: float = 1e-2
    augmented: bool = True
    head: bool = True
    validate_every: int = 25
    patience: int = 3
    stride: int = 4


class Learner(Protocol):
    """What is tuned: the private tensors of a domain, or whatever is compared with them."""

    @property
    def parameters(self) -> list[Tensor]: ...

    def logits(self, images: Tensor) -> Tensor: ...


class PrivateLearner:
    """A domain's private tensors on a bench, the network frozen.

    Parameters
    ----------
    start : copied, never changed
    head : learn a head of its own too
    """

    def __init__(self, bench: Bench, start: State, *, head: bool) -> None:
        self._bench = bench
        own = bench.backbone.head if head else None
        self._state = TrainableState(start, bench.spec, bench.device, own)

    @property
    def parameters(self) -> list[Tensor]:
        return self._state.parameters

    def logits(self, images: Tensor) -> Tensor:
        return self._bench.forward(images, self._state, self._state.head)

    def snapshot(self) -> State:
        """The present values."""
        return self._state.snapshot()


class Run:
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
        cases: Sequence[LabelledSlices],
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
        if tuning.augmented:
            images, classes = augment(images, classes, self._random)
        rows, columns = self._frame
        images, classes = images[:, :, rows, columns], classes[:, rows, columns]
        loss = dice_cross_entropy(
            self._learner.logits(images), classes.to(self._device), annotated.to(self._device)
        )
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self.done += 1
        return float(loss.detach())


def adapt(
    bench: Bench,
    start: State,
    training: Sequence[LabelledSlices],
    validation: Sequence[LabelledSlices],
    tuning: Tuning,
    *,
    report: Report = lambda _progress, _step: None,
) -> Adaptation:
    """Tune the private tensors of one new state on one half, judged by the other.

    Parameters
    ----------
    bench : the frozen network
    start : copied, never changed
    training, validation : the two halves of the labelled cases

    Returns
    -------
    Adaptation
        Its state is never worse than `start` on the validation half.
    """
    look = _Looks(bench, start, [case.showing(tuning.stride) for case in validation])
    learner = PrivateLearner(bench, start, head=tuning.head)
    run = Run(learner, training, tuning, bench.device)
    while run.done < tuning.steps:
        report(run.done / tuning.steps, f"tuning, validation Dice {look.best_dice:.3f}")
        run.step()
        if run.done % tuning.validate_every and run.done != tuning.steps:
            continue
        look.at(run.done, learner.snapshot())
        if run.done - look.best_step >= tuning.patience * tuning.validate_every:
            break
    return Adaptation(look.best, tuple(look.history))


def refit(
    bench: Bench,
    start: State,
    cases: Sequence[LabelledSlices],
    tuning: Tuning,
    length: int,
    *,
    report: Report = lambda _progress, _step: None,
) -> State:
    """Tune once more, on every labelled case, as long as validation has found best.

    Parameters
    ----------
    start : the state that `adapt` started from
    cases : both halves
    tuning : the same as of `adapt`, so that the learning rate takes the same way
    length : steps taken
    """
    learner = PrivateLearner(bench, start, head=tuning.head)
    run = Run(learner, cases, tuning, bench.device)
    while run.done < length:
        report(run.done / length, "learning from all cases")
        run.step()
    return learner.snapshot()


@torch.inference_mode()
def recalibrate(
    bench: Bench, state: State, cases: Sequence[LabelledSlices], *, batch_slices: int = 16
) -> State:
    """The same gamma and beta over the statistics of these scans; needs no labels.

    Each batch runs through whole scans with wide steps, so that it resembles
    the scan and is normalised by its own statistics. Pooled in float64: the
    mean of the variances, plus the variance of the means.

    Notes
    -----
    Li et al., Pattern Recognition 80:109-117, 2018 (AdaBN), with the pooling
    that averaging the batches' variances lacks.
    """
    gamma, beta = state.rows[:2].to(bench.device)
    means: list[Tensor] = []
    variances: list[Tensor] = []

    def normalise(layer: Layer, features: Tensor) -> Tensor:
        at = slice(layer.start, layer.start + layer.channels)
        var, mean = torch.var_mean(features.float(), (0, 2, 3), correction=0)
        means[-1][at], variances[-1][at] = mean, var
        scale = gamma[at] / torch.sqrt(var + bench.spec.eps)
        shift = beta[at] - mean * scale
        return scale_shift_relu(features, scale[None], shift[None])

    for case in cases:
        busy = torch.from_numpy(case.images[case.images.any((1, 2))])[:, None]
        rounds = max(1, len(busy) // batch_slices)
        for first in range(rounds):
            means.append(torch.zeros(bench.spec.channels, dtype=torch.float64))
            variances.append(torch.zeros(bench.spec.channels, dtype=torch.float64))
            bench.forward(busy[first::rounds].float(), normalise)
    pooled = torch.stack(means)
    mean = pooled.mean(0)
    var = torch.stack(variances).mean(0) + pooled.var(0, correction=0)
    rows = torch.stack([*state.rows[:2], mean.float(), var.float()])
    return State(rows, state.backbone, state.head)


class _Looks:
    """Looks at the validation half, and the best state so far."""

    def __init__(self, bench: Bench, start: State, cases: Sequence[LabelledSlices]) -> None:
        self._bench = bench
        self._cases = cases
        self.history: list[Look] = []
        self.best, self.best_dice, self.best_step = start, -1.0, 0
        self.at(0, start)

    def at(self, step: int, state: State) -> None:
        dice = mean_dice(self._bench.score(state, self._cases))
        self.history.append(Look(step, dice))
        if dice > self.best_dice:
            self.best, self.best_dice, self.best_step = state, dice, step


def _mean_over_cases(scores: NDArray[np.float64]) -> list[float]:
    known = (column[~np.isnan(column)] for column in scores.T)
    return [float(column.mean()) if column.size else math.nan for column in known]

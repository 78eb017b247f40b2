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

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.augment import augment
from models.backbone import Backbone
from models.bank import affine
from models.cases import LabelledSlices, Sampler, frame_of
from models.dice import dice_scores
from models.losses import dice_cross_entropy
from models.network import Normalise
from models.normalise import TrainableState
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
        self.device = device
        self._precision = precision
        own = {name: (number,) for number, name in enumerate(self.spec.classes) if number}
        self._judged: Mapping[str, Sequence[int]] = judged or own
        self._batch_slices = batch_slices
        network = copy.deepcopy(backbone.network).to(device)
        self._network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor, normalise: Normalise) -> Tensor:
        """N 1 H W to logits N K H W, in the bench's precision."""
        images = images.to(self.device).to(memory_format=torch.channels_last)
        mixed = self._precision != torch.float32
        with torch.autocast(self.device.type, self._precision, enabled=mixed):
            return self._network(images, normalise)  # type: ignore[no-any-return]

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
        normalise = affine(state.affine(self.spec.eps)[None].to(self.device))
        return self.forward(images, normalise).argmax(1).to("cpu", torch.uint8).numpy()


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


def adapt(
    bench: Bench,
    start: State,
    training: Sequence[LabelledSlices],
    validation: Sequence[LabelledSlices],
    *,
    seed: int = 0,
    steps: int = 100,
    batch_size: int = 4,
    learning_rate: float = 1e-2,
    augmented: bool = True,
    validate_every: int = 25,
    patience: int = 3,
    stride: int = 4,
    report: Report = lambda _progress, _step: None,
) -> Adaptation:
    """Tune the batch norm of one new state.

    Batches are normalised by their own statistics, whose running mean becomes
    the state's, as in the initial training.

    Parameters
    ----------
    bench : the frozen network
    start : copied, never changed
    training, validation : the two halves of the labelled cases
    seed : the same seed on the same device gives the same state
    steps : at most; learning_rate falls to 0 over them as a cosine
    patience : looks without progress before the run ends
    stride : look at every n-th validation slice

    Returns
    -------
    Adaptation
        Its state is never worse than `start` on the validation half.
    """
    validation = [case.showing(stride) for case in validation]
    look = _Looks(bench, start, validation)
    sampler = Sampler(training, seed)
    rows, columns = frame_of(training)
    random = torch.Generator().manual_seed(seed + 1)
    learner = TrainableState(start, bench.spec, bench.device)
    optimiser = torch.optim.Adam(learner.parameters, lr=learning_rate)
    for step in range(1, steps + 1):
        report((step - 1) / steps, f"tuning, validation Dice {look.best_dice:.3f}")
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
        images, classes, annotated = sampler.draw(batch_size)
        if augmented:
            images, classes = augment(images, classes, random)
        images, classes = images[:, :, rows, columns], classes[:, rows, columns]
        loss = dice_cross_entropy(
            bench.forward(images, learner), classes.to(bench.device), annotated.to(bench.device)
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step % validate_every and step != steps:
            continue
        look.at(step, learner.snapshot())
        if step - look.best_step >= patience * validate_every:
            break
    return Adaptation(look.best, tuple(look.history))


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

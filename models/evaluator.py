"""A frozen network on a device, for scoring and tuning states."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.backbone import Backbone
from models.bank import DomainParameters, domain_parameters
from models.cases import LabelledSlices, SlicedCase, frame_of, slices_showing
from models.decoder import SliceDecoder
from models.dice import dice_scores
from models.network import UNet
from models.state import State

C = TypeVar("C", bound=SlicedCase)

OnProgress = Callable[[float, str], None]
"""(progress 0 to 1, step in words); may raise to end the run."""


class Evaluator:
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
        self.precision = precision
        single_classes = {
            name: (number,) for number, name in enumerate(self.spec.classes) if number
        }
        self._judged: Mapping[str, Sequence[int]] = judged or single_classes
        self._batch_slices = batch_slices
        network = copy.deepcopy(backbone.network).to(device)
        self._network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor, parameters: DomainParameters) -> Tensor:
        """N 1 H W to logits N K H W, in the evaluator's precision."""
        return self.through(self._network, images, parameters)

    def through(self, network: UNet, images: Tensor, parameters: DomainParameters) -> Tensor:
        """The same with any network, in the evaluator's precision and on its device."""
        images = images.to(self.device).to(memory_format=torch.channels_last)
        mixed = self.precision != torch.float32
        with torch.autocast(self.device.type, self.precision, enabled=mixed):
            return network(images, *parameters)  # type: ignore[no-any-return]

    @property
    def judged(self) -> tuple[str, ...]:
        """Names of the columns of `score`."""
        return tuple(self._judged)

    def excerpt(self, case: C, stride: int) -> C:
        """As much of a case as tells how well a state does on it, for little time.

        Every n-th slice that shows a judged structure, and of it the part
        that holds them all; what is drawn far from them is not looked for.
        """
        judged = np.zeros(len(case.annotated), bool)
        for numbers in self._judged.values():
            judged[list(numbers)] = True
        opened, annotated = case.opened(), case.annotated & judged
        shown = slices_showing(opened, annotated, stride)
        # Of the images only the shape counts, and that is the same for every slice.
        sparse = LabelledSlices(opened.images[:0], opened.classes[shown], annotated)
        return case.part(shown, *frame_of([sparse], margin=16))

    def score(self, state: State, cases: Sequence[SlicedCase]) -> NDArray[np.float64]:
        """3-D Dice of every case and judged structure, (cases, J).

        NaN where a structure is not annotated, or empty in answer and reference.
        """
        rows = []
        for case in (each.opened() for each in cases):
            answer = self.classes(state, case.images, consecutive=case.consecutive)
            rows.append(self.compare(answer, case))
        return np.stack(rows)

    def compare(self, answer: NDArray[np.uint8], case: LabelledSlices) -> NDArray[np.float64]:
        """3-D Dice of one answer (N H W classes) for each judged structure, (J,)."""
        merged = np.zeros(len(self.spec.classes), np.uint8)
        annotated = np.zeros(len(self._judged) + 1, bool)
        for place, numbers in enumerate(self._judged.values(), start=1):
            merged[list(numbers)] = place
            annotated[place] = case.annotated[list(numbers)].all()
        return dice_scores(merged[answer], merged[case.classes], annotated)[1:]

    @torch.inference_mode()
    def classes(
        self, state: State, images: NDArray[np.float32], *, consecutive: bool = False
    ) -> NDArray[np.uint8]:
        """Classes N H W of slices N H W.

        Parameters
        ----------
        consecutive : the slices follow one another; see `SliceDecoder`
        """
        parameters = domain_parameters(state, self.backbone, self.device)
        decoder = SliceDecoder.of(self.spec, images, consecutive=consecutive)
        shown = torch.from_numpy(decoder.inputs)
        for batch in torch.split(shown[:, None], self._batch_slices):
            decoder.add(self.forward(batch, parameters).float())
        return decoder.classes


def mean_dice(scores: NDArray[np.float64]) -> float:
    """Mean over classes, then over cases; NaN entries do not count."""
    per_case = [row[~np.isnan(row)].mean() for row in scores if not np.isnan(row).all()]
    return float(np.mean(per_case)) if per_case else 0.0

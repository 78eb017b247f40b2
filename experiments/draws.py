"""Random batches of slices that live on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from models.cases import LabelledSlices, structures_shown

Batch = tuple[Tensor, Tensor, Tensor]
"""images N 1 H W float32, classes N H W int64, annotated N K bool."""

Draw = Callable[[int, int], Batch]
"""(slices, step) -> a batch; the same step draws the same one, so nothing has to be stored."""


class Pool:
    """The slices of some cases, resident on a device.

    Slices that show more structures are drawn more often; those that show
    none, never.

    Parameters
    ----------
    cases : at least one
    seed : of the draws
    """

    def __init__(self, cases: Sequence[LabelledSlices], seed: int, device: torch.device) -> None:
        weights = np.concatenate([structures_shown(case) for case in cases])
        used = np.flatnonzero(weights)
        self._seed = seed
        self._weights = torch.from_numpy(weights[used])
        self._images = torch.from_numpy(
            np.concatenate([case.images.astype(np.float16) for case in cases])[used]
        ).to(device)
        self._classes = torch.from_numpy(np.concatenate([c.classes for c in cases])[used]).to(
            device
        )
        self._annotated = torch.from_numpy(cases[0].annotated).to(device)

    def draw(self, count: int, step: int) -> Batch:
        """Slices with replacement."""
        random = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        picks = torch.multinomial(self._weights, count, True, generator=random)
        picks = picks.to(self._images.device)
        images = self._images[picks][:, None].float()
        return images, self._classes[picks].long(), self._annotated.expand(count, -1)


def mixed(draws: Sequence[Draw]) -> Draw:
    """Batches in which every source has its share; the rest goes round."""

    def draw(count: int, step: int) -> Batch:
        shares = [
            count // len(draws) + ((turn + step) % len(draws) < count % len(draws))
            for turn in range(len(draws))
        ]
        parts = [one(share, step) for one, share in zip(draws, shares, strict=True) if share]
        images, classes, annotated = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return images, classes, annotated

    return draw

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

    Every structure is drawn as often as every other, the large ones spread
    over more slices; slices that show none are never drawn.

    Parameters
    ----------
    cases : at least one
    seed : of the draws
    crop : rows and columns of a random part that is drawn instead of whole
        slices; the same part for a batch
    """

    def __init__(
        self,
        cases: Sequence[LabelledSlices],
        seed: int,
        device: torch.device,
        crop: tuple[int, int] | None = None,
    ) -> None:
        shown = np.concatenate([structures_shown(case) for case in cases])
        weights = (shown / shown.sum(0).clip(1)).sum(1)
        used = np.flatnonzero(weights)
        self._seed, self._crop = seed, crop
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
        images, classes = self._images[picks], self._classes[picks]
        if self._crop is not None:
            rows, columns = (
                int(torch.randint(length - part + 1, (1,), generator=random))
                for length, part in zip(images.shape[1:], self._crop, strict=True)
            )
            part = (slice(rows, rows + self._crop[0]), slice(columns, columns + self._crop[1]))
            images, classes = images[:, *part], classes[:, *part]
        return images[:, None].float(), classes.long(), self._annotated.expand(count, -1)


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

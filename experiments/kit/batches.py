"""Random batches of labelled slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from experiments.kit.recipes import Recipe
from models.augment import augment, random_crops
from models.cases import LabelledSlices, Sampler, frame_of, structures_shown

Batch = tuple[Tensor, Tensor, Tensor]
"""images N 1 H W float32, classes N H W int64, annotated N K bool."""

DrawBatch = Callable[[int, int], Batch]
"""(slices, step) -> a batch."""


class SlicePool:
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
        images = np.concatenate([case.images.astype(np.float16) for case in cases])
        classes = np.concatenate([case.classes for case in cases])
        self._seed, self._crop = seed, crop
        self._weights = torch.from_numpy(weights[used])
        self._images = torch.from_numpy(images[used]).to(device)
        self._classes = torch.from_numpy(classes[used]).to(device)
        self._annotated = torch.from_numpy(cases[0].annotated).to(device)

    def draw(self, count: int, step: int) -> Batch:
        """Draw slices with replacement; the same step draws the same batch."""
        random = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        picks = torch.multinomial(self._weights, count, True, generator=random)
        picks = picks.to(self._images.device)
        images, classes = self._images[picks], self._classes[picks]
        if self._crop is not None:
            crop = _random_crop(images.shape[1:], self._crop, random)
            images, classes = images[:, *crop], classes[:, *crop]
        return images[:, None].float(), classes.long(), self._annotated.expand(count, -1)


def _random_crop(
    shape: Sequence[int], size: tuple[int, int], random: torch.Generator
) -> tuple[slice, slice]:
    starts = [
        int(torch.randint(length - part + 1, (1,), generator=random))
        for length, part in zip(shape, size, strict=True)
    ]
    rows, columns = (slice(start, start + part) for start, part in zip(starts, size, strict=True))
    return rows, columns


def mixed(sources: Sequence[DrawBatch]) -> DrawBatch:
    """Batches in which every source has its share; the remainder goes round."""

    def draw(count: int, step: int) -> Batch:
        shares = [
            count // len(sources) + ((turn + step) % len(sources) < count % len(sources))
            for turn in range(len(sources))
        ]
        parts = [
            source(share, step) for source, share in zip(sources, shares, strict=True) if share
        ]
        images, classes, annotated = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return images, classes, annotated

    return draw


def adaptation_batches(cases: Sequence[LabelledSlices], recipe: Recipe) -> DrawBatch:
    """Batches as `models.adapt` draws them: around the structures, cropped, augmented.

    The draws follow one another; the step is not looked at.
    """
    sampler, (rows, columns) = Sampler(cases, recipe.seed), frame_of(cases)
    random = torch.Generator().manual_seed(recipe.seed + 1)

    def draw(count: int, _step: int) -> Batch:
        images, classes, annotated = sampler.draw(count)
        images, classes = images[:, :, rows, columns], classes[:, rows, columns]
        images, classes = random_crops(images, classes, recipe.crop, random)
        if recipe.augment:
            images, classes = augment(images, classes, random)
        return images, classes, annotated

    return draw

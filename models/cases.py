"""Labelled slices: what adaptation and training look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class LabelledSlices:
    """One case in the network's space.

    Attributes
    ----------
    images : N H W float32, intensities by percentile
    classes : N H W uint8, in the order of the backbone's classes
    annotated : (K,) bool, which classes the reference can be asked about
    consecutive : whether the slices follow one another without gaps
    """

    images: NDArray[np.float32]
    classes: NDArray[np.uint8]
    annotated: NDArray[np.bool_]
    consecutive: bool = False

    def showing(self, stride: int) -> LabelledSlices:
        """Every n-th slice that holds an annotated structure, and no others."""
        numbers = np.flatnonzero(self.annotated & (np.arange(len(self.annotated)) > 0))
        holding = np.flatnonzero(np.isin(self.classes, numbers).any((1, 2)))[stride // 2 :: stride]
        return LabelledSlices(self.images[holding], self.classes[holding], self.annotated)


def frame_of(
    cases: Sequence[LabelledSlices], *, margin: int = 8, least: int = 128, multiple: int = 16
) -> tuple[slice, slice]:
    """The part of a slice that holds all annotated structures of all cases.

    Parameters
    ----------
    margin : pixels kept around them
    least : pixels at least, for the context around small structures
    multiple : the sizes are divisible by it

    Returns
    -------
    slices of H and of W; never beyond the image
    """
    height, width = cases[0].images.shape[1:]
    rows, columns = np.zeros(height, bool), np.zeros(width, bool)
    for case in cases:
        shown = np.isin(case.classes, np.flatnonzero(case.annotated[1:]) + 1)
        rows |= shown.any((0, 2))
        columns |= shown.any((0, 1))
    return tuple(_span(held, margin, least, multiple) for held in (rows, columns))  # type: ignore[return-value]


def _span(held: NDArray[np.bool_], margin: int, least: int, multiple: int) -> slice:
    where = np.flatnonzero(held)
    if not where.size:
        return slice(0, len(held))
    length = max(int(where[-1] - where[0]) + 1 + 2 * margin, least)
    size = min(-(-length // multiple) * multiple, len(held))
    start = int(where[0] + where[-1] + 1 - size) // 2
    start = min(max(start, 0), len(held) - size)
    return slice(start, start + size)


def structures_shown(case: LabelledSlices) -> NDArray[np.bool_]:
    """Which annotated structures each slice shows, (N, K - 1): without the background."""
    count = len(case.annotated)
    held = np.stack([np.bincount(labels.ravel(), minlength=count) > 0 for labels in case.classes])
    return (held & case.annotated)[:, 1:]


class Sampler:
    """Random slices of several cases; those that show more structures more often.

    Parameters
    ----------
    cases : at least one
    seed : of the draws
    """

    def __init__(self, cases: Sequence[LabelledSlices], seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)
        self._images = torch.from_numpy(np.concatenate([c.images for c in cases]))
        self._classes = torch.from_numpy(np.concatenate([c.classes for c in cases]))
        self._annotated = torch.from_numpy(
            np.concatenate([np.tile(c.annotated, (len(c.images), 1)) for c in cases])
        )
        shown = np.concatenate([structures_shown(case) for case in cases])
        self._weights = torch.from_numpy(shown.sum(1).astype(np.float64))

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Slices with replacement.

        Returns
        -------
        images : N 1 H W float32
        classes : N H W int64
        annotated : N K bool
        """
        picks = torch.multinomial(self._weights, count, True, generator=self._random)
        images, classes = self._images[picks][:, None], self._classes[picks].long()
        return images, classes, self._annotated[picks]

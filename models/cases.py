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
    """

    images: NDArray[np.float32]
    classes: NDArray[np.uint8]
    annotated: NDArray[np.bool_]

    def every(self, stride: int) -> LabelledSlices:
        """Every n-th slice that holds an annotated structure, and no others."""
        wanted = np.flatnonzero(self.annotated & (np.arange(len(self.annotated)) > 0))
        holding = np.flatnonzero(np.isin(self.classes, wanted).any((1, 2)))[stride // 2 :: stride]
        return LabelledSlices(self.images[holding], self.classes[holding], self.annotated)


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
        held = torch.nn.functional.one_hot(self._classes.flatten(1).long(), len(cases[0].annotated))
        self._weights = (held.any(1) & self._annotated)[:, 1:].sum(1).double()

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

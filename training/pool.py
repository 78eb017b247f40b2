"""A store of labelled slices that is renewed while the network trains."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.cases import LabelledSlices, structures_shown


class Pool:
    """The newest cases of one domain.

    Parameters
    ----------
    size : cases kept; the oldest leaves when another comes
    crop : pixels (H, W) of the drawn slices; None: whole slices
    inputs : slices shown at once, odd; the middle one is drawn
    """

    def __init__(self, size: int, crop: tuple[int, int] | None = None, inputs: int = 1) -> None:
        self._cases: deque[tuple[LabelledSlices, npt.NDArray[np.float64]]] = deque(maxlen=size)
        self._crop = crop
        self._around = np.arange(inputs) - inputs // 2

    def __len__(self) -> int:
        return len(self._cases)

    def add(self, case: LabelledSlices) -> None:
        """Take a case in."""
        weights = structures_shown(case).sum(1) + 1.0  # the background counts as a structure
        reached = np.cumsum(weights)
        self._cases.append((case, reached / reached[-1]))

    def draw(
        self, count: int, rng: np.random.Generator, *, mirrored: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Slices with replacement; those that show more structures more often.

        Parameters
        ----------
        mirrored : swap left and right in one slice of two; the classes must
            not know one from the other

        Returns
        -------
        images : N C H W float32, C slices that follow one another; beyond the
            outermost slice that one is repeated
        classes : N H W int64
        annotated : N K bool
        """
        first = self._cases[0][0]
        shape = self._crop or first.images.shape[1:]
        images = np.empty((count, len(self._around), *shape), first.images.dtype)
        classes = np.empty((count, *shape), first.classes.dtype)
        annotated = np.empty((count, len(first.annotated)), bool)
        for n in range(count):
            case, reached = self._cases[rng.integers(len(self._cases))]
            pick = int(np.searchsorted(reached, rng.random(), side="right"))
            place = self._place(case.images.shape[1:], rng)
            flip = slice(None, None, -1) if mirrored and rng.random() < 0.5 else slice(None)
            for channel, near in enumerate(np.clip(pick + self._around, 0, len(reached) - 1)):
                images[n, channel] = case.images[near][place][flip]
            classes[n] = case.classes[pick][place][flip]
            annotated[n] = case.annotated
        # They travel small; PyTorch widens them much faster than NumPy.
        return (
            torch.from_numpy(images).float(),
            torch.from_numpy(classes).long(),
            torch.from_numpy(annotated),
        )

    def _place(self, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[slice, ...]:
        size = self._crop or shape
        starts = [rng.integers(max(n - w, 0) + 1) for n, w in zip(shape, size, strict=True)]
        return tuple(slice(int(s), int(s) + w) for s, w in zip(starts, size, strict=True))

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
    """

    def __init__(self, size: int, crop: tuple[int, int] | None = None) -> None:
        self._cases: deque[tuple[LabelledSlices, npt.NDArray[np.float64]]] = deque(maxlen=size)
        self._crop = crop

    def __len__(self) -> int:
        return len(self._cases)

    def add(self, case: LabelledSlices) -> None:
        """Take a case in."""
        weights = structures_shown(case).sum(1) + 1.0  # the background counts as a structure
        self._cases.append((case, weights / weights.sum()))

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
        images : N 1 H W float32
        classes : N H W int64
        annotated : N K bool
        """
        images, classes, annotated = [], [], []
        for _ in range(count):
            case, weights = self._cases[rng.integers(len(self._cases))]
            pick = rng.choice(len(weights), p=weights)
            at = self._place(case.images.shape[1:], rng)
            flip = slice(None, None, -1) if mirrored and rng.random() < 0.5 else slice(None)
            images.append(case.images[pick][at][flip].astype(np.float32))
            classes.append(case.classes[pick][at][flip].astype(np.int64))
            annotated.append(case.annotated)
        return (
            torch.from_numpy(np.stack(images))[:, None],
            torch.from_numpy(np.stack(classes)),
            torch.from_numpy(np.stack(annotated)),
        )

    def _place(self, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[slice, ...]:
        wanted = self._crop or shape
        starts = [rng.integers(max(n - w, 0) + 1) for n, w in zip(shape, wanted, strict=True)]
        return tuple(slice(int(s), int(s) + w) for s, w in zip(starts, wanted, strict=True))

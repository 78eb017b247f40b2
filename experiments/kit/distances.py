"""Distances between two segmentations; no torch, so that processes start fast."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from normbank.imaging.metrics import Spacing, hd95_mm


def distances_mm(
    predicted: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8],
    groups: Sequence[Sequence[int]],
    spacing_mm: Spacing,
) -> list[float]:
    """HD95 of each structure.

    Parameters
    ----------
    predicted, reference : (X, Y, Z) class numbers
    groups : class numbers of each structure
    spacing_mm : (X, Y, Z)

    Returns
    -------
    mm; NaN where a structure is in neither, the volume's diagonal where it is
    in one alone
    """
    distances = (
        hd95_mm(np.isin(predicted, numbers), np.isin(reference, numbers), spacing_mm)
        for numbers in groups
    )
    return [math.nan if distance is None else distance for distance in distances]

"""Distances between two segmentations; no torch, so that processes start fast."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from normbank.imaging.metrics import Spacing, hd95_mm


def distances_mm(
    answer: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8],
    groups: Sequence[Sequence[int]],
    spacing_mm: Spacing,
) -> list[float]:
    """HD95 of each structure.

    Parameters
    ----------
    answer, reference : (X, Y, Z) class numbers
    groups : class numbers of each structure
    spacing_mm : (X, Y, Z)

    Returns
    -------
    mm; NaN where a structure is in neither, the volume's diagonal where it is
    in one alone
    """
    found = []
    for numbers in groups:
        a, b = np.isin(answer, numbers), np.isin(reference, numbers)
        distance = hd95_mm(a, b, spacing_mm)
        found.append(math.nan if distance is None else distance)
    return found

"""Histogram matching of a new scan to a domain's average histogram.

Our own choice: Karani et al., MICCAI 2018, compare with histogram
equalisation to the closest domain and do not say how they did it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from models.cases import LabelledSlices

FOREGROUND = 0.1
"""Intensities by percentile above which a voxel is no air."""

_BINS = np.linspace(FOREGROUND, 4.0, 1025)


def average_histogram(cases: Sequence[LabelledSlices]) -> npt.NDArray[np.float64]:
    """Mean density of the foreground's intensities, every scan with the same weight.

    Returns
    -------
    (bins,) sums to 1
    """
    densities = [_density(case.images) for case in cases]
    return np.asarray(np.mean(densities, axis=0))


def matched(case: LabelledSlices, histogram: npt.NDArray[np.float64]) -> LabelledSlices:
    """A scan whose foreground has another histogram; its air stays as it is.

    Parameters
    ----------
    histogram : of `average_histogram`

    Returns
    -------
    LabelledSlices
        The order of any two intensities is kept.
    """
    middles = (_BINS[1:] + _BINS[:-1]) / 2
    share = np.cumsum(_density(case.images)) - _density(case.images) / 2
    target = np.cumsum(histogram) - histogram / 2
    occupied = histogram > 0
    table = np.interp(share, target[occupied], middles[occupied])
    images = case.images.copy()
    foreground = images > FOREGROUND
    images[foreground] = np.interp(images[foreground], middles, table)
    return replace(case, images=images)


def _density(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    foreground = np.clip(images[images > FOREGROUND], None, _BINS[-1])
    counts = np.histogram(foreground, _BINS)[0].astype(np.float64)
    return np.asarray(counts / max(counts.sum(), 1.0))

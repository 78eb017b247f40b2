"""Intensities on a common scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from normbank.errors import EmptyScanError

_SAMPLES = 1 << 15  # voxels that a percentile is guessed from
_SPARE = 1.5  # times as many of the greatest values are looked at as are needed


def divide_by_percentile(
    volume: npt.NDArray[np.floating[Any]], percent: float = 98.0
) -> npt.NDArray[np.float32]:
    """Bring a volume's intensities to a common scale.

    MR intensities have no unit: one tissue may read 300 on one scanner and
    1200 on the next. Dividing by a high percentile keeps the contrast, which
    is what a domain's state is there to absorb. Nothing is clipped.

    Parameters
    ----------
    volume : (X, Y, Z), scanner units
        Finite; left alone. Where so much of it is background that the
        percentile is not positive, that of the positive voxels is taken.
    percent : per cent, 0 < percent <= 100

    Returns
    -------
    (X, Y, Z) float32, dimensionless

    Raises
    ------
    EmptyScanError
        If no voxel is positive.

    Notes
    -----
    Karani et al., MICCAI 2018, section 3, "Training details".
    """
    return (volume / intensity_unit(volume, percent)).astype(np.float32, copy=False)


def intensity_unit(volume: npt.NDArray[np.floating[Any]], percent: float = 98.0) -> float:
    """The intensity that counts as 1 for `divide_by_percentile`; scanner units."""
    if not 0 < percent <= 100:
        raise ValueError("percent must be above 0 and at most 100")
    unit = percentile_of_greatest(volume, volume.size, percent) if volume.size else 0.0
    if unit > 0:
        return unit
    positive = int(np.count_nonzero(volume > 0))
    if not positive:
        raise EmptyScanError("No voxel of the scan is positive.")
    return percentile_of_greatest(volume, positive, percent)


def percentile_of_greatest(
    volume: npt.NDArray[np.floating[Any]], count: int, percent: float
) -> float:
    """A percentile of the `count` greatest values of a volume.

    The same number as `numpy.percentile` gives, interpolated in the volume's
    type; only the values above it are sorted.

    Parameters
    ----------
    volume : (X, Y, Z), finite, in any order in memory
    count : 1 to all voxels
    percent : per cent, 0 to 100
    """
    place = (count - 1) * (percent / 100)
    below = int(place)
    greatest = _greatest(volume.ravel("K"), count - below)
    first = len(greatest) - (count - below)
    greatest.partition(first)
    low = greatest[first]
    high = greatest[first + 1 :].min() if first + 1 < len(greatest) else low
    part, step = place - below, high - low
    return float(low + step * part if part < 0.5 else high - step * (1 - part))


def _greatest(values: npt.NDArray[np.floating[Any]], least: int) -> npt.NDArray[Any]:
    """The greatest values, `least` or more, in a new array and any order."""
    drawn = np.random.default_rng(0).integers(len(values), size=_SAMPLES)
    sample = np.sort(values[drawn])
    rank = round(_SPARE * least / len(values) * _SAMPLES) + 1
    if rank < _SAMPLES:
        greatest: npt.NDArray[Any] = values[values >= sample[-rank]]
        if len(greatest) >= least:
            return greatest
    return values.copy()

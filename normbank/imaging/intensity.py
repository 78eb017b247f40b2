"""Intensities on a common scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from normbank.errors import EmptyScanError


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
    unit = float(np.percentile(volume, percent)) if volume.size else 0.0
    if unit > 0:
        return unit
    positive = volume[volume > 0]
    if not positive.size:
        raise EmptyScanError("No voxel of the scan is positive.")
    return float(np.percentile(positive, percent))

"""From voxels as a file holds them to a scan that networks can take."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from normbank.entities import Flag
from normbank.errors import EmptyScanError
from normbank.imaging.air import zero_air
from normbank.imaging.scan import Scan


def finished(
    data: npt.NDArray[np.float32],
    affine: npt.NDArray[np.float64],
    header: Any,
    flags: tuple[Flag, ...],
) -> Scan:
    """A scan of voxels that were just read; voxels that are not finite count as air.

    Parameters
    ----------
    data : (X, Y, Z), scaled; changed in place
    affine, header, flags : as of `Scan`

    Raises
    ------
    EmptyScanError
        If the voxels are all alike or none is finite.
    """
    low, high = data.min(), data.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        finite = np.isfinite(data)
        if not finite.any():
            raise EmptyScanError("No voxel of the scan is a finite number.")
        data[~finite] = 0
        low, high = data.min(), data.max()
    if low == high:
        raise EmptyScanError("All voxels of the scan are alike.")
    zeroed = zero_air(data, float(high))
    return Scan(zeroed.data, affine, header, (*flags, *zeroed.flags))

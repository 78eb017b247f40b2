"""Intensities of which air is 0 and all else is more, whatever a file stores.

Networks learn from scans whose air reads 0 or little more. Files come with other
conventions: an offset (Hounsfield units, rescaled integers), z-scores, quotients between
-0.5 and 0.5 with noise as air (MP2RAGE), air that has wrapped around to the greatest
number, no number at all, or a single voxel that dwarfs all others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from normbank.entities import Flag
from normbank.entities.flags import info

Volume = npt.NDArray[np.float32]

_EVERY = 4  # voxels of a sample, along each axis
_LOWEST = 0.1  # per cent: what counts as the least intensity; rest are outliers
_BRIGHT = 99.5  # per cent: what counts as bright; a small head may fill 3 % of its volume
_NEAR_ZERO = 0.1  # of what is bright: so far from 0 the least may lie
_BELOW_AIR = 0.02  # share of a volume that may be darker than constant air
_WRAPPED = 0.005  # share of voxels that hold the greatest number, where air has wrapped
_ABOVE_ALL = 3.0  # times the bright rest: such a greatest number is no tissue
_HUGE = 100.0  # times what is bright: a single voxel, not a tissue


class ZeroedAir(NamedTuple):
    """A volume with air at 0, and what was done to it."""

    data: Volume
    flags: tuple[Flag, ...]


def zero_air(data: Volume, high: float) -> ZeroedAir:
    """Bring a volume's air to 0.

    Parameters
    ----------
    data : (X, Y, Z), finite, in the scanner's units
    high : its greatest value

    Returns
    -------
    the volume itself: untouched where its least intensity is near 0 already, as in all
    that scanners write as magnitudes; else changed in place, and the flag `intensities`
    """
    said = []
    rest_low = _low_beside_wrapped_air(data, high)
    if rest_low is not None:
        data[data == np.float32(high)] = rest_low
        said.append(f"air that had wrapped around to {high:g} was brought to 0")
        high = float(data.max())
    sample = _sample(data)
    lowest, bright = (float(value) for value in np.percentile(sample, (_LOWEST, _BRIGHT)))
    if high - lowest > _HUGE * (bright - lowest) > 0:
        np.minimum(data, np.float32(lowest + _HUGE / 10 * (bright - lowest)), out=data)
        said.append(f"single voxels of up to {high:g} were cut off")
    air = _constant_air(data)
    if air is not None and _is_below(sample, air, bright):
        tissue = sample[sample != np.float32(air)]
        floor = np.float32(np.percentile(tissue, _LOWEST))
        is_air = data == np.float32(air)
        _lower(data, floor)
        data[is_air] = 0
        said.append(f"tissue darker than the air, down to {floor:g}, was raised above it")
    elif abs(lowest) > _NEAR_ZERO * (bright - lowest):
        _lower(data, np.float32(lowest))
        said.append(f"air of about {lowest:g} was brought to 0")
    flags = (info("intensities", f"In the intensities {', '.join(said)}."),) if said else ()
    return ZeroedAir(data, flags)


def _lower(data: Volume, floor: np.float32) -> None:
    """Bring what is at or below a floor to 0, in place."""
    np.subtract(data, floor, out=data)
    np.maximum(data, 0, out=data)


def _sample(data: Volume) -> npt.NDArray[np.float32]:
    start = tuple(slice(min(_EVERY // 2, size - 1), None, _EVERY) for size in data.shape)
    return data[start].ravel("K")


def _faces(data: Volume) -> npt.NDArray[np.float32]:
    """Every voxel of the six faces that the sample's grid meets."""
    every = slice(None, None, _EVERY)
    return np.concatenate(
        [
            np.moveaxis(data, axis, 0)[end][every, every].ravel()  # `take` copies the volume
            for axis in range(3)
            for end in (0, -1)
        ]
    )


def _constant_air(data: Volume) -> float | None:
    """The value that most of the faces hold, where it is exactly one."""
    faces = _faces(data)
    middle = float(np.median(faces))
    return middle if np.count_nonzero(faces == np.float32(middle)) > faces.size / 2 else None


def _is_below(sample: npt.NDArray[np.float32], air: float, bright: float) -> bool:
    """Whether more than a little is clearly darker than constant air."""
    darkest = float(sample.min())
    clearly = air - 0.05 * max(bright - air, air - darkest)
    return bool(np.count_nonzero(sample < clearly) > _BELOW_AIR * sample.size)


def _low_beside_wrapped_air(data: Volume, high: float) -> float | None:
    """The least of the rest, where the greatest number stands for air.

    That is so where it is met often, also at the faces, and lies far above all else.
    """
    sample = _sample(data)
    rest = sample[sample < np.float32(high)]
    if not rest.size or sample.size - rest.size < _WRAPPED * sample.size:
        return None
    faces = _faces(data)
    if np.count_nonzero(faces == np.float32(high)) < _WRAPPED * faces.size:
        return None
    lowest, bright = (float(value) for value in np.percentile(rest, (_LOWEST, 99)))
    return lowest if high - lowest > _ABOVE_ALL * (bright - lowest) > 0 else None

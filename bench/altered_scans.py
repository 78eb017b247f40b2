"""Scans with other gain, noise and voxels. For `bench/identification.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import ndimage

from normbank.imaging.scan import Scan


def coarser(image: Scan, sizes_mm: Sequence[float]) -> Scan:
    """The same scan in larger voxels, at least as large as they are, blurred accordingly."""
    data, affine = image.data, image.affine.copy()
    for axis, (size, now) in enumerate(zip(sizes_mm, image.spacing_mm, strict=True)):
        factor = size / now
        if factor <= 1:
            continue
        data = ndimage.gaussian_filter1d(data, np.sqrt(factor**2 - 1) / 2.3548, axis=axis)
        places = np.arange(int(data.shape[axis] / factor)) * factor + (factor - 1) / 2
        low = places.astype(int)
        part = (places - low).reshape([-1 if a == axis else 1 for a in range(3)])
        high = np.minimum(low + 1, data.shape[axis] - 1)
        data = data.take(low, axis) * (1 - part) + data.take(high, axis) * part
        affine[:3, 3] += affine[:3, axis] * (factor - 1) / 2
        affine[:3, axis] *= factor
    return Scan(data.astype(np.float32), affine)


ALTERED: Mapping[str, Callable[[Scan], Scan]] = {
    "gain 1000": lambda image: Scan(image.data * 1000, image.affine),
    "noise": lambda image: Scan(
        np.abs(image.data + 0.05 * np.percentile(image.data, 99)
               * np.random.default_rng(0).standard_normal(image.shape, np.float32)),
        image.affine,
    ),
    "1.5 mm": lambda image: coarser(image, (1.5, 1.5, 1.5)),
    "2 mm": lambda image: coarser(image, (2, 2, 2)),
    "5 mm along x": lambda image: coarser(image, (5, 1, 1)),
    "5 mm along y": lambda image: coarser(image, (1, 5, 1)),
    "5 mm along z": lambda image: coarser(image, (1, 1, 5)),
}  # fmt: skip

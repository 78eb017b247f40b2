"""A few slices through a network: is what it names there a brain?"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from normbank.anatomy import FREESURFER_OUTPUT
from normbank.entities import DomainState
from normbank.errors import EmptyScanError
from normbank.imaging.brain import NetworkSpace, SlicePredictor, guess_centre
from normbank.imaging.geometry import Geometry
from normbank.imaging.intensity import intensity_unit
from normbank.imaging.plausibility import is_judged
from normbank.imaging.reference_anatomy import REFERENCES
from normbank.imaging.scan import Scan
from normbank.imaging.window import Window

NetworkOf = Callable[[DomainState], tuple[SlicePredictor, NetworkSpace] | None]
"""The network with a state, and its backbone's conventions; None where it cannot be had."""

_HEIGHTS_MM = np.arange(-40.0, 33.0, 12.0)  # of the slices, from the window's middle
_CUT_MM = 40.0  # off a slice's two sides together, and off front and back
_MULTIPLE = 8  # networks halve a slice three times
_ROOMY = 1.8  # times below the least or above the greatest volume met
_SWELLING = 6.0  # times above it that fluid may have
_LEAST_STRUCTURES = 6  # that a position is judged by
_PLAUSIBLE, _MISPLACED_MM = 0.7, 15.0
_SATURATED = 0.04  # of what is not air at the very same greatest value: a mask, a CT's window


class Anatomy(NamedTuple):
    """What a network names in some slices.

    Attributes
    ----------
    plausible : share of the structures whose volume may be one
    misplaced_mm : mean distance of structures from where they belong; infinite for too few
    """

    plausible: float
    misplaced_mm: float

    @property
    def is_brain(self) -> bool:
        return self.plausible >= _PLAUSIBLE and self.misplaced_mm <= _MISPLACED_MM


class Looker:
    """Shows one scan to networks, seven slices of it.

    Parameters
    ----------
    scan : any orientation and spacing
    """

    def __init__(self, scan: Scan, network_of: NetworkOf) -> None:
        self._scan, self._network_of = scan, network_of
        self._slices: dict[tuple[float, float, int], npt.NDArray[np.float32]] = {}

    def saturated(self) -> bool:
        """Whether too much of the scan has one and the same greatest value, as no MR scan has."""
        data = self._scan.data
        greatest = data.max()
        full = np.count_nonzero(data == greatest)
        return bool(full > _SATURATED * np.count_nonzero(data > 0.02 * greatest))

    def anatomy(self, state: DomainState) -> Anatomy | None:
        """What the network with this state names; None where that cannot be judged."""
        network = self._network_of(state)
        if network is None or not is_judged(network[1].classes) or network[1].slice_axis != 2:
            return None
        predictor, space = network
        try:
            slices = self._cut(space)
        except EmptyScanError:
            return Anatomy(0.0, np.inf)
        return _measured(predictor(slices), space)

    def _cut(self, space: NetworkSpace) -> npt.NDArray[np.float32]:
        """N H W, as the network takes them; kept for the next state of the same backbone."""
        key = (space.spacing_mm, space.percentile, *space.window[:1])
        if key not in self._slices:
            volume = Geometry.of(self._scan, space.spacing_mm).to_network(self._scan.data)
            box = Window(space.window, guess_centre(volume, space.spacing_mm)).cut(volume)
            rows, columns, _ = (_middle(size, space.spacing_mm) for size in space.window)
            slices = np.moveaxis(box[rows, columns][:, :, _heights(space)], 2, 0)
            unit = np.float32(intensity_unit(box, space.percentile))
            self._slices[key] = np.ascontiguousarray(slices / unit)
        return self._slices[key]


def _heights(space: NetworkSpace) -> npt.NDArray[np.intp]:
    places = space.window[2] / 2 + _HEIGHTS_MM / space.spacing_mm
    return np.clip(places.round(), 0, space.window[2] - 1).astype(np.intp)


def _middle(size: int, spacing_mm: float) -> slice:
    """As much of a slice as holds a brain."""
    cut = _MULTIPLE * int(_CUT_MM / spacing_mm / _MULTIPLE)
    return slice(cut // 2, size - (cut - cut // 2))


def _measured(classes: npt.NDArray[np.uint8], space: NetworkSpace) -> Anatomy:
    """Volumes and middles of every structure, N H W of them, held against those of heads."""
    voxel_ml = space.spacing_mm**2 * (_HEIGHTS_MM[1] - _HEIGHTS_MM[0]) / 1000
    fits, apart = [], []
    for name, reference in REFERENCES.items():
        if name not in space.classes:
            continue
        sides = 2 if FREESURFER_OUTPUT[name].paired else 1
        height, row, column = np.nonzero(classes == space.classes.index(name))
        volume = len(row) * voxel_ml / sides
        most = reference.greatest_ml * (_SWELLING if "ventricle" in name else _ROOMY)
        fits.append(reference.least_ml / _ROOMY <= volume <= most)
        if volume >= reference.least_ml / 2:
            x, y = row.mean() * space.spacing_mm, column.mean() * space.spacing_mm
            z = _HEIGHTS_MM[height].mean()
            apart.append((x, y - reference.y, z - reference.z))
    return Anatomy(float(np.mean(fits)), _misplaced_mm(np.array(apart)))


def _misplaced_mm(apart: npt.NDArray[np.float64]) -> float:
    """Mean distance of structures from their places, once the head is moved to its own."""
    if len(apart) < _LEAST_STRUCTURES:
        return float(np.inf)
    return float(np.linalg.norm(apart - np.median(apart, 0), axis=1).mean())

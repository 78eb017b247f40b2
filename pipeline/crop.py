"""Scans brought into a network's space and cut to its window."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from normbank.imaging.brain import NetworkSpace, SlicePredictor, frame_brain, guess_centre
from normbank.imaging.geometry import Geometry
from normbank.imaging.intensity import divide_by_percentile
from normbank.imaging.scan import Scan
from normbank.imaging.window import Window


@dataclass(frozen=True, slots=True, eq=False)
class CroppedScan:
    """A scan in the network's space, with the way back.

    Attributes
    ----------
    slices : N H W float32, every slice of the window, intensities by percentile
    focus : rows and columns that hold the brain
    """

    geometry: Geometry
    window: Window
    slices: npt.NDArray[np.float32]
    slice_axis: int
    focus: tuple[slice, slice] = (slice(None), slice(None))

    def label_slices(self, classes: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.uint8]:
        """Reference classes (X, Y, Z) on the scan's grid, as N H W slices."""
        volume = self.geometry.labels_to_network(classes, count)
        cut = self.window.cut(volume)
        return np.ascontiguousarray(np.moveaxis(cut, self.slice_axis, 0))


def crop_to_brain(scan: Scan, predictor: SlicePredictor, space: NetworkSpace) -> CroppedScan:
    """Bring a scan into the network's space and its brain into the window.

    Parameters
    ----------
    scan : any orientation and spacing
    predictor : the network with the state that shall find the brain
    space : the backbone's conventions

    Raises
    ------
    EmptyScanError
        See `frame_brain`.
    """
    geometry = Geometry.of(scan, space.spacing_mm)
    volume = geometry.to_network(scan.data)
    framing = frame_brain(volume, predictor, space)
    return replace(_cropped(geometry, volume, framing.window, space), focus=framing.focus)


def crop_to_outline(scan: Scan, space: NetworkSpace) -> CroppedScan:
    """The same by the head's outline alone, before any state is known to fit.

    Raises
    ------
    EmptyScanError
        If nothing stands out from the background.
    """
    geometry = Geometry.of(scan, space.spacing_mm)
    volume = geometry.to_network(scan.data)
    return _cropped(
        geometry, volume, Window(space.window, guess_centre(volume, space.spacing_mm)), space
    )


def _cropped(
    geometry: Geometry, volume: npt.NDArray[np.float32], window: Window, space: NetworkSpace
) -> CroppedScan:
    return CroppedScan(geometry, window, cut_slices(volume, window, space), space.slice_axis)


def cut_slices(
    volume: npt.NDArray[np.float32], window: Window, space: NetworkSpace
) -> npt.NDArray[np.float32]:
    """Every slice of a window as a network takes it, N H W, intensities by percentile.

    Parameters
    ----------
    volume : (X', Y', Z') RAS+, in the network's spacing
    """
    box = divide_by_percentile(window.cut(volume), space.percentile)
    return np.ascontiguousarray(np.moveaxis(box, space.slice_axis, 0))

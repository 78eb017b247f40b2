"""One scan in, FreeSurfer labels on its own grid out.

The network is passed in as a function of slices, so that the API's engine, a
worker and an experiment all run this same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from normbank.imaging.brain import (
    NetworkSpace,
    SlicePredictor,
    frame_brain,
    guess_centre,
    is_cerebrum,
)
from normbank.imaging.geometry import Geometry
from normbank.imaging.intensity import divide_by_percentile
from normbank.imaging.masks import box_of, largest_component, open_to_outside
from normbank.imaging.scan import Scan
from normbank.imaging.sides import split_sides
from normbank.imaging.volumes import volumes_mm3
from normbank.imaging.window import Window

_BORDER_VOXELS = 500  # of cerebrum along the focus's border, that are no sign of a wrong focus


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

    def to_scan(self, box: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """Ids (W, H, D) of the window on the scan's own grid; 0 beside the window."""
        volume = self.window.paste(box.astype(np.uint8), self.geometry.network_shape)
        return self.geometry.labels_to_scan(volume).astype(np.int16)

    def label_slices(self, classes: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.uint8]:
        """Reference classes (X, Y, Z) on the scan's grid, as N H W slices."""
        volume = self.geometry.labels_to_network(classes, count)
        cut = self.window.cut(volume)
        return np.ascontiguousarray(np.moveaxis(cut, self.slice_axis, 0))


@dataclass(frozen=True, slots=True, eq=False)
class SegmentedScan:
    """The answer for one scan.

    Attributes
    ----------
    ids : (X, Y, Z) int16, FreeSurfer ids on the scan's own grid
    volumes_mm3 : per side and structure
    quality : facts a reader may judge the answer by
    timings_s : per stage
    """

    ids: npt.NDArray[np.int16]
    volumes_mm3: Mapping[str, float]
    quality: Mapping[str, Any]
    timings_s: Mapping[str, float]


def computed_by(
    segmented_scan: SegmentedScan, backend: str, logits_sha256: str | None = None
) -> SegmentedScan:
    """The same answer with what computed it and, if wanted, the hash of every score."""
    quality = {**segmented_scan.quality, "backend": backend}
    if logits_sha256 is not None:
        quality["logits_sha256"] = logits_sha256
    return replace(segmented_scan, quality=quality)


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
    box = divide_by_percentile(window.cut(volume), space.percentile)
    slices = np.ascontiguousarray(np.moveaxis(box, space.slice_axis, 0))
    return CroppedScan(geometry, window, slices, space.slice_axis)


def segment_scan(scan: Scan, predictor: SlicePredictor, space: NetworkSpace) -> SegmentedScan:
    """Segment one scan.

    Parameters
    ----------
    scan : any orientation and spacing
    predictor : the network with the domain's state
    space : the backbone's conventions

    Raises
    ------
    EmptyScanError
        See `frame_brain`.
    """
    clock = _Clock()
    network = clock.timed("network", predictor)
    cropped = crop_to_brain(scan, network, space)
    clock.lap("frame")
    classes = predict_slices(cropped.slices, network, cropped.focus, is_cerebrum(space.classes))
    classes = erase_air(classes, cropped.slices)
    box = np.ascontiguousarray(np.moveaxis(classes, 0, cropped.slice_axis))
    ids = split_sides(keep_brain(box), space.classes)
    clock.lap("sides")
    on_scan = cropped.to_scan(ids)
    volumes = volumes_mm3(on_scan, scan.affine)
    clock.lap("back")
    return SegmentedScan(on_scan, volumes, _quality(volumes), clock.laps)


def predict_slices(
    slices: npt.NDArray[np.float32],
    predictor: SlicePredictor,
    focus: tuple[slice, slice],
    cerebrum: npt.NDArray[np.bool_],
) -> npt.NDArray[np.uint8]:
    """Classes of every slice.

    Air in front of the first slice and behind the last is not computed, nor
    what lies outside of the focus, unless the cerebrum reaches its border.

    Parameters
    ----------
    slices : N H W
    focus : rows and columns
    cerebrum : (K,), which classes belong to it

    Returns
    -------
    N H W uint8
    """
    classes = np.zeros(slices.shape, np.uint8)
    busy = (number for number, image in enumerate(slices) if image.any())
    first = next(busy, None)
    if first is None:
        return classes
    last = next(n for n in reversed(range(len(slices))) if slices[n].any())
    head = slice(first, last + 1)
    rows, columns = focus
    seen = predictor(np.ascontiguousarray(slices[head, rows, columns]), consecutive=True)
    if seen.shape[1:] != slices.shape[1:] and _reaches_border(cerebrum[seen]):
        seen, rows, columns = predictor(slices[head], consecutive=True), slice(None), slice(None)
    classes[head, rows, columns] = seen
    return classes


def _reaches_border(mask: npt.NDArray[np.bool_]) -> bool:
    """Whether more than a little lies along the outermost rows and columns, N H W."""
    ring = (mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1])
    return sum(map(np.count_nonzero, ring)) > _BORDER_VOXELS


def erase_air(
    classes: npt.NDArray[np.uint8], volume: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Erase labels where nothing was measured.

    That is what is exactly 0 and hangs together with the volume's faces:
    what skull stripping or a mask has taken away, and what lies beyond the
    field of view. A network that knows heads would draw fluid there.

    Parameters
    ----------
    classes, volume : (X, Y, Z) in any order of axes
    """
    nothing = volume == 0
    if not (nothing & (classes > 0)).any():
        return classes
    return classes * ~open_to_outside(nothing)


def keep_brain(classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Erase what hangs together with nothing: islands outside the brain.

    Parameters
    ----------
    classes : (X, Y, Z), 0 is background
    """
    box = box_of(classes)
    kept = np.zeros_like(classes)
    kept[box] = classes[box] * largest_component(classes[box] > 0)
    return kept


def _quality(volumes: Mapping[str, float]) -> dict[str, Any]:
    """Signs of a failed segmentation that need no reference."""
    missing = sorted(name for name, mm3 in volumes.items() if mm3 == 0)
    asymmetry = {}
    for name, left in volumes.items():
        right = volumes.get(name.replace("left-", "right-", 1))
        if name.startswith("left-") and right is not None and left + right > 0:
            asymmetry[name.removeprefix("left-")] = round((left - right) / (left + right), 3)
    return {
        "brain_ml": round(sum(volumes.values()) / 1000, 1),
        "missing": missing,
        "asymmetry": asymmetry,
    }


class _Clock:
    """Seconds from one lap to the next, without those spent in what is timed by itself."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, stage: str) -> None:
        now = perf_counter()
        self.laps[stage] = round(now - self._last, 4)
        self._last = now

    def timed(self, stage: str, predictor: SlicePredictor) -> SlicePredictor:
        """The same predictor, whose calls are a stage of their own."""

        def predict(
            slices: npt.NDArray[np.float32], *, consecutive: bool = False
        ) -> npt.NDArray[np.uint8]:
            started = perf_counter()
            classes = predictor(slices, consecutive=consecutive)
            took = perf_counter() - started
            self.laps[stage] = round(self.laps.get(stage, 0.0) + took, 4)
            self._last += took
            return classes

        return predict

"""Whether a segmentation's structures lie where the labels have them.

A SEG that is mirrored or shifted looks right to every reader that makes the same mistake as
its writer. So the way back is taken with nothing but the standard's own attributes: position,
orientation and pixel spacing of each frame (PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.pixels.utils import iter_pixels

from normbank.errors import NormbankError
from normbank.imaging.masks import box_of

TOLERANCE_MM = 0.1
_TO_RAS = np.array([-1.0, -1.0, 1.0])


class MisplacedSegmentError(NormbankError):
    """A segment does not lie where its label does: a fault of normbank, not of the scan."""

    code = "misplaced_segment"


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Of each number: how many voxels, and the sum of their positions, (N,) and (N, 3)."""

    counts: npt.NDArray[np.float64]
    positions: npt.NDArray[np.float64]

    def centroid(self, number: int) -> npt.NDArray[np.float64] | None:
        if not self.counts[number]:
            return None
        centre: npt.NDArray[np.float64] = self.positions[number] / self.counts[number]
        return centre


def check_centroids(
    seg: Dataset,
    ids: npt.NDArray[np.integer[Any]],
    affine: npt.NDArray[np.float64],
    numbers: Mapping[int, int],
) -> None:
    """Hold every segment's centroid against that of its label.

    Parameters
    ----------
    seg : as it will leave, its pixels encoded
    ids : (X, Y, Z), the labels
    affine : (4, 4), voxel to RAS+ mm
    numbers : segment of each label id

    Raises
    ------
    MisplacedSegmentError
        If two lie more than `TOLERANCE_MM` apart, or hold another number of voxels.
    """
    of_seg, of_labels = _of_seg(seg, max(numbers.values())), _of_labels(ids, affine)
    for label, segment in numbers.items():
        there, here = of_seg.centroid(segment), of_labels.centroid(label)
        if there is None or here is None or of_seg.counts[segment] != of_labels.counts[label]:
            raise MisplacedSegmentError(f"Segment {segment} does not hold its label's voxels.")
        distance = float(np.linalg.norm(there - here))
        if not distance <= TOLERANCE_MM:
            raise MisplacedSegmentError(
                f"Segment {segment} lies {distance:.2f} mm from where its label does.",
                facts={"segment": segment, "distance_mm": round(distance, 3)},
            )


def _of_labels(ids: npt.NDArray[np.integer[Any]], affine: npt.NDArray[np.float64]) -> _Sums:
    """Of every id, in RAS+ mm."""
    size = int(ids.max()) + 1
    box = box_of(ids)
    inside = ids[box]
    labelled = np.nonzero(inside)
    found = inside[labelled].astype(np.intp)
    counts = np.bincount(found, minlength=size).astype(np.float64)
    sums = np.stack([np.bincount(found, axis, size) for axis in labelled], axis=1)
    sums += np.outer(counts, [extent.start for extent in box])
    return _Sums(counts, sums @ affine[:3, :3].T + counts[:, None] * affine[:3, 3])


def _of_seg(seg: Dataset, last: int) -> _Sums:
    """Of every segment's number, in RAS+ mm, frame by frame as the standard places them."""
    counts, positions = np.zeros(last + 1), np.zeros((last + 1, 3))
    shared = seg.SharedFunctionalGroupsSequence[0]
    binary = seg.SegmentationType == "BINARY"
    frames = _unpacked(seg) if binary else iter_pixels(seg)
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        pixels = frame.ravel()
        drawn = np.flatnonzero(pixels)
        if not len(drawn):
            continue
        values = pixels[drawn].astype(np.intp)
        if binary:
            named = _group(shared, groups, "SegmentIdentificationSequence")
            segment = named.ReferencedSegmentNumber
            values = np.full(len(drawn), segment, np.intp)
        rows, columns = np.divmod(drawn, seg.Columns)
        origin, along_row, along_column = _placed(shared, groups)
        seen = np.bincount(values, minlength=last + 1)
        positions += np.outer(np.bincount(values, columns, last + 1), along_row)
        positions += np.outer(np.bincount(values, rows, last + 1), along_column)
        positions += np.outer(seen, origin)
        counts += seen
    return _Sums(counts, positions * _TO_RAS)


def _unpacked(seg: Dataset) -> Iterator[npt.NDArray[np.uint8]]:
    """Frames of one bit a pixel, which follow each other without a gap (PS3.5 8.1.1)."""
    packed, size = np.frombuffer(seg.PixelData, np.uint8), int(seg.Rows) * int(seg.Columns)
    for number in range(int(seg.NumberOfFrames)):
        first, end = number * size, (number + 1) * size
        bits = np.unpackbits(packed[first // 8 : -(-end // 8)], bitorder="little")
        yield bits[first % 8 : first % 8 + size]


def _placed(shared: Dataset, groups: Dataset) -> tuple[npt.NDArray[np.float64], ...]:
    """Of a frame, in LPS mm: its first pixel, the step to the next column and to the next row."""
    origin = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
    orientation = _group(shared, groups, "PlaneOrientationSequence").ImageOrientationPatient
    spacing = _group(shared, groups, "PixelMeasuresSequence").PixelSpacing
    cosines = np.array(orientation, float)
    # Of the two spacings the first is that between rows.
    return origin, cosines[:3] * float(spacing[1]), cosines[3:] * float(spacing[0])


def _group(shared: Dataset, groups: Dataset, name: str) -> Dataset:
    found: Dataset = (groups if name in groups else shared)[name][0]
    return found

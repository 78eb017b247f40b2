"""Labels of a case that come as a DICOM segmentation of the same series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from normbank.dicom import tags
from normbank.dicom.elements import items_of
from normbank.dicom.files import DEFLATED, EXPLICIT_LITTLE, IMPLICIT_LITTLE, DicomFile, read_file
from normbank.dicom.frames import descriptions_of
from normbank.dicom.layout import check_length, layout_of
from normbank.dicom.pixels import Wanted, stored_frames
from normbank.dicom.segments import ids_of, segment_of
from normbank.dicom.series import DicomSeries
from normbank.dicom.tags import tag
from normbank.dicom.values import Where
from normbank.errors import DicomError, GeometryMismatchError, InvalidError, TooLargeError
from normbank.imaging.scan import LabelVolume, Limits, spacing_of

_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_KIND, _SEGMENTS = tag("SegmentationType"), tag("SegmentSequence")
_REFERENCED_SERIES = tag("ReferencedSeriesSequence")
_SOURCES = tag("SourceImageSequence")
_SOURCE_INSTANCE, _SOURCE_FRAME = tag("ReferencedSOPInstanceUID"), tag("ReferencedFrameNumber")
_SEGMENT = tag("ReferencedSegmentNumber")
_OFF = 0.1  # of a voxel: how far a frame may lie from its slice
_TURNED = 1e-3  # of a direction cosine

Masks = Iterator[tuple[int, npt.NDArray[Any]]]
"""Frame after frame: its slice, and (rows, columns) of ids."""


def read_seg_labels(
    seg: Path,
    series: DicomSeries,
    limits: Limits,
    scheme: str,
    mapping: Mapping[str, int] | None = None,
) -> LabelVolume:
    """The labels of a DICOM SEG on the grid of the series that it was made of.

    Parameters
    ----------
    seg : the file; BINARY or LABELMAP
    series : the scan
    scheme : one of `LABEL_SCHEMES`
    mapping : label or number of a segment -> id of the scheme, for segments whose codes
        and labels say nothing, or the wrong thing

    Returns
    -------
    int32 (columns, rows, slices) ids; slices without a frame are background

    Raises
    ------
    DicomError
        `not_a_segmentation`, `fractional_segmentation`, `seg_of_another_series`,
        `overlapping_segments`; those of a damaged file.
    GeometryMismatchError
        If its frames do not lie on slices of the series.
    UnknownLabelError
        `unknown_segments`.
    TooLargeError
        If it has more bytes than allowed.
    """
    file = read_file(seg, limits)
    if file is None or file.where.text(tags.SOP_CLASS) not in _CLASSES:
        raise DicomError(
            "The labels are no DICOM segmentation. Send a DICOM SEG of the series, or NIfTI.",
            code="not_a_segmentation",
        )
    kind = file.where.text(_KIND)
    if kind not in ("BINARY", "LABELMAP"):
        raise DicomError(
            "The segmentation holds probabilities, not labels. Export it as BINARY or LABELMAP.",
            code="fractional_segmentation",
        )
    _check_series(file, series)
    segments = [segment_of(item) for item in items_of(file.where.find(_SEGMENTS))]
    ids = ids_of([segment for segment in segments if segment.number], scheme, mapping)
    descriptions = descriptions_of(file)
    slices = _slices_of(descriptions, series)
    masks = _labelled if kind == "LABELMAP" else _binary
    columns, rows, count = series.shape
    labels: npt.NDArray[np.int32] = np.zeros((count, rows, columns), np.int32)
    for place, mask in masks(file, descriptions, slices, ids, limits):
        _put(labels[place], mask)
    return LabelVolume(labels.transpose(2, 1, 0), series.affine)


def _put(labels: npt.NDArray[np.int32], mask: npt.NDArray[Any]) -> None:
    """Write the ids of one frame into its slice, (rows, columns) both."""
    inside = mask != 0
    if (labels[inside] != 0).any():
        raise DicomError(
            "Segments overlap: a voxel can have one label alone. Export them without overlap.",
            code="overlapping_segments",
        )
    labels[inside] = mask[inside]


def _check_series(file: DicomFile, series: DicomSeries) -> None:
    referenced = {
        Where((item,)).text(tags.SERIES) for item in items_of(file.where.find(_REFERENCED_SERIES))
    }
    reference = file.where.text(tags.FRAME_OF_REFERENCE)
    elsewhere = (
        reference is not None
        and series.frame_of_reference_uid is not None
        and reference != series.frame_of_reference_uid
    )
    if elsewhere or (referenced and series.series_uid not in referenced):
        raise DicomError(
            "The segmentation was made of another series. Send the one of this scan.",
            code="seg_of_another_series",
        )
    columns, rows, _ = series.shape
    if (file.where.whole(tags.COLUMNS), file.where.whole(tags.ROWS)) != (columns, rows):
        raise GeometryMismatchError(
            "The segmentation has other rows and columns than the series.",
            facts={"scan_shape": list(series.shape)},
        )


def _slices_of(descriptions: Sequence[Where], series: DicomSeries) -> list[int]:
    """The slice of the series on which each frame lies: by place, and by its source."""
    by_source = {
        (one.sop_instance_uid, one.frame + 1 if series.enhanced else None): place
        for place, one in enumerate(series.slices)
    }
    to_voxel = np.linalg.inv(series.affine).astype(np.float64)
    found = []
    for where in descriptions:
        placed, named = _by_place(where, series, to_voxel), _by_source(where, by_source)
        if placed is None and named is None:
            raise GeometryMismatchError(
                "A frame of the segmentation does not say on which slice it lies."
            )
        if placed is not None and named is not None and placed != named:
            raise GeometryMismatchError(
                "A frame of the segmentation lies on another slice than the one it was made of."
            )
        found.append(named if placed is None else placed)
    return [place for place in found if place is not None]


def _by_source(where: Where, by_source: Mapping[tuple[str, int | None], int]) -> int | None:
    """The only slice that a frame names as its source."""
    places = set()
    for item in items_of(where.find(_SOURCES)):
        source = Where((item,))
        instance, frame = source.text(_SOURCE_INSTANCE) or "", source.whole(_SOURCE_FRAME)
        places.add(by_source.get((instance, frame), by_source.get((instance, None))))
    known = places - {None}
    return known.pop() if len(known) == 1 else None


def _by_place(where: Where, series: DicomSeries, to_voxel: npt.NDArray[np.float64]) -> int | None:
    """The slice at whose place a frame lies; None where the frame does not say."""
    position = where.vector(tags.POSITION, 3)
    orientation = where.vector(tags.ORIENTATION, 6)
    spacing = where.vector(tags.PIXEL_SPACING, 2)
    if position is None:
        return None
    voxel = to_voxel @ np.array([-position[0], -position[1], position[2], 1.0])
    place = round(float(voxel[2]))
    off = np.abs(voxel[:3] - [0, 0, place]).max() > _OFF or not 0 <= place < series.shape[2]
    sizes = spacing_of(series.affine)
    if orientation is not None:
        directions = series.affine[:3, :2] / sizes[:2] * np.array([[-1], [-1], [1]])
        off |= np.abs(directions.T.ravel() - orientation).max() > _TURNED
    if spacing is not None:
        off |= np.abs(np.array([sizes[1], sizes[0]]) / spacing - 1).max() > _TURNED
    if off:
        raise GeometryMismatchError(
            "The frames of the segmentation do not lie on the slices of the series. Send one on "
            "the series' own grid."
        )
    return place


def _labelled(
    file: DicomFile,
    descriptions: Sequence[Where],
    slices: Sequence[int],
    ids: Mapping[int, int],
    limits: Limits,
) -> Masks:
    """Frames of a LABELMAP: numbers of segments become ids."""
    layout = layout_of(file)
    check_length(file, layout)
    if layout.frame_bytes * layout.frames > limits.max_volume_bytes:
        raise TooLargeError("The segmentation has more bytes than the service takes.")
    table = np.full(1 << layout.allocated if layout.allocated <= 16 else 0, -1, np.int32)
    if not len(table) or layout.signed:
        raise DicomError("The labels are not of 8 or 16 bits.", code="unsupported_pixels")
    table[0] = 0
    for number, label_id in ids.items():
        table[number] = label_id
    frames = stored_frames([Wanted(file, layout, i) for i in range(len(descriptions))])
    for place, frame in zip(slices, frames, strict=True):
        labels = table[frame]
        if (labels < 0).any():
            raise InvalidError(
                "The segmentation holds numbers of segments that it does not describe.",
                code="unknown_segments",
            )
        yield place, labels


def _binary(
    file: DicomFile,
    descriptions: Sequence[Where],
    slices: Sequence[int],
    ids: Mapping[int, int],
    limits: Limits,
) -> Masks:
    """Frames of a BINARY segmentation, one bit a pixel, one segment a frame."""
    rows, columns = file.where.whole(tags.ROWS) or 0, file.where.whole(tags.COLUMNS) or 0
    bits = rows * columns
    if file.syntax not in (EXPLICIT_LITTLE, IMPLICIT_LITTLE, DEFLATED) or file.pixels is None:
        raise DicomError(
            "A BINARY segmentation is read uncompressed only. Export it so, or as LABELMAP.",
            code="unsupported_transfer_syntax",
        )
    if max(bits * len(descriptions) // 8, file.pixels.length or 0) > limits.max_volume_bytes:
        raise TooLargeError("The segmentation has more bytes than the service takes.")
    packed = np.frombuffer(file.read()[file.pixels.at : file.pixels_end], np.uint8)
    if len(packed) < (bits * len(descriptions) + 7) // 8:
        raise DicomError(
            "The segmentation ends before its last pixel. Export it again.", code="broken_pixels"
        )
    for number, (where, place) in enumerate(zip(descriptions, slices, strict=True)):
        label_id = ids.get(where.whole(_SEGMENT) or 0)
        if label_id is None:
            raise InvalidError(
                "A frame belongs to a segment that the segmentation does not describe.",
                code="unknown_segments",
            )
        first, last = number * bits, (number + 1) * bits
        some = np.unpackbits(packed[first // 8 : (last + 7) // 8], bitorder="little")
        mask = some[first % 8 :][:bits].reshape(rows, columns)
        yield place, mask * np.int32(label_id)

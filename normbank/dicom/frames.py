"""Frames of images, classic and multi-frame alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from normbank.dicom import tags
from normbank.dicom.elements import Elements, broken, items_of
from normbank.dicom.files import DicomFile
from normbank.dicom.tags import tag
from normbank.dicom.values import Where
from normbank.errors import DicomError

_MAX_FRAMES = 65_536
_LEAST, _MOST = 1e-25, 1e25  # of a slope; single precision ends at 1e-38 and 1e38
_GROUPS = tuple(
    tag(keyword)
    for keyword in (
        "FrameContentSequence",
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "PixelValueTransformationSequence",
        "MRImageFrameTypeSequence",
        "MREchoSequence",
        "MRDiffusionSequence",
        "MRTimingAndRelatedParametersSequence",
        "MRModifierSequence",
        "TemporalPositionSequence",
        "CardiacSynchronizationSequence",
        "DerivationImageSequence",
        "SegmentIdentificationSequence",
    )
)
_DIFFUSION_DIRECTION = tag("DiffusionGradientDirectionSequence")


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of one plane.

    Attributes
    ----------
    file : position of its file among those of the series
    index : which frame of the file, from 0
    where : the data sets that describe it
    position : (3,) of the middle of its first pixel, mm, LPS+
    orientation : (6,) direction of a row, then of a column
    spacing : mm between rows, between columns
    slope, intercept : stored * slope + intercept
    """

    file: int
    index: int
    where: Where
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    slope: float
    intercept: float


def frames_of(files: Sequence[DicomFile]) -> list[Frame]:
    """Every frame of the files, in their order.

    Raises
    ------
    DicomError
        `missing_geometry` if one has no place in the patient, `broken_dicom` if it has no
        description, `bad_rescale` if its intensities cannot be scaled.
    """
    return [
        _frame(position, index, where)
        for position, file in enumerate(files)
        for index, where in enumerate(descriptions_of(file))
    ]


def descriptions_of(file: DicomFile) -> list[Where]:
    """The data sets that describe each frame of a file.

    Raises
    ------
    DicomError
        `broken_dicom` if their count is not that of the frames.
    """
    where = file.where
    per_frame = where.find(tags.FRAME_GROUPS)
    count = where.whole(tags.FRAMES)
    if per_frame is None:
        if count not in (None, 1):
            raise DicomError(
                "An image has several frames and does not say where they lie. Export the series "
                "as enhanced or as classic MR images.",
                code="missing_geometry",
            )
        return [where]
    if not 1 <= (count or 1) <= _MAX_FRAMES:
        raise broken("its number of frames makes no sense")
    groups = items_of(per_frame)
    if len(groups) != (count or 1):
        raise broken("it describes another number of frames than it has")
    shared: Elements = {}
    for item in items_of(where.find(tags.SHARED_GROUPS))[:1]:
        shared = _flat(item)
    return [Where((_flat(item), shared, file.elements)) for item in groups]


def _flat(groups: Elements) -> Elements:
    """The elements of the functional groups of ours, without the groups."""
    flat: Elements = {}
    for number in _GROUPS:
        for item in items_of(groups.get(number))[:1]:
            flat.update(item)
    for item in items_of(flat.get(_DIFFUSION_DIRECTION))[:1]:
        flat.update(item)
    return flat


def _frame(file: int, index: int, where: Where) -> Frame:
    position = where.vector(tags.POSITION, 3)
    orientation = where.vector(tags.ORIENTATION, 6)
    spacing = where.vector(tags.PIXEL_SPACING, 2)
    if position is None or orientation is None or spacing is None:
        raise DicomError(
            "An image does not say where it lies in the patient (ImagePositionPatient, "
            "ImageOrientationPatient or PixelSpacing is missing). Export the series from the "
            "scanner or the PACS again, with its geometry.",
            code="missing_geometry",
        )
    if not all(value > 0 for value in spacing):
        raise DicomError(
            "PixelSpacing is not positive. Export the series again.", code="missing_geometry"
        )
    slope, intercept = where.number(tags.SLOPE), where.number(tags.INTERCEPT)
    if (slope is not None and not _LEAST < abs(slope) < _MOST) or abs(intercept or 0) > _MOST:
        raise DicomError(
            "RescaleSlope is 0 or so far from 1 that no intensities would be left. Export the "
            "series again.",
            code="bad_rescale",
        )
    return Frame(
        file, index, where, position, orientation, spacing,
        1.0 if slope is None else slope, intercept or 0.0,
    )  # fmt: skip

"""Whether a series is one volume, whole, each slice once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from normbank.dicom import tags
from normbank.dicom.files import DicomFile
from normbank.dicom.frames import Frame
from normbank.dicom.kinds import components_of
from normbank.dicom.tags import tag
from normbank.errors import DicomError

_TELL_VOLUMES_APART = (
    "EffectiveEchoTime",
    "EchoTime",
    "EchoNumbers",
    "InversionTime",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "TriggerTime",
    "FlipAngle",
    "RepetitionTime",
    "ImageType",
    "FrameType",
    "ComplexImageComponent",
    "AcquisitionNumber",
    "StackID",
)
_COUNTS = (tags.IMAGES_IN_ACQUISITION, tags.RELATED_INSTANCES, tags.NUMBER_OF_SLICES)
_SEND = "Send the complete series."


def check_instances(files: Sequence[DicomFile]) -> None:
    """Refuse a series that holds an instance twice.

    Raises
    ------
    DicomError
        `duplicate_instances`.
    """
    instances = [file.where.text(tags.SOP_INSTANCE) for file in files]
    if len(set(instances)) < len(instances):
        twice = len(instances) - len(set(instances))
        raise DicomError(
            f"The series holds images twice ({twice}), by their SOPInstanceUID. Send each once.",
            code="duplicate_instances",
            facts={"duplicates": twice},
        )


def check_one_volume(frames: Sequence[Frame], places: npt.NDArray[np.intp]) -> None:
    """Refuse slices at one place, and slices that were not acquired alike.

    Raises
    ------
    DicomError
        `several_volumes`, whose facts name what tells them apart; `duplicate_positions`
        where nothing does; `mixed_contrast` where there is one volume of two kinds.
    """
    counts = np.bincount(places)
    if counts.max() == 1:
        _check_one_contrast(frames)
        return
    by = [word for word in _TELL_VOLUMES_APART if _differs_at_a_place(frames, places, word)]
    if not by or (counts == 1).mean() > 0.5:
        twice = int(len(frames) - len(counts))
        raise DicomError(
            f"Slices lie where another one lies already ({twice}), and nothing tells them "
            "apart. Send each slice once.",
            code="duplicate_positions",
            facts={"duplicates": twice},
        )
    raise DicomError(
        f"The series holds {counts.max()} volumes, which differ in {by[0]}. Send one of them, "
        "split off by that value.",
        code="several_volumes",
        facts={"volumes": int(counts.max()), "by": by},
    )


def _differs_at_a_place(frames: Sequence[Frame], places: npt.NDArray[np.intp], word: str) -> bool:
    """Whether two frames at one place have different values of an element."""
    number = tag(word)
    values: dict[int, bytes | None] = {}
    for frame, place in zip(frames, places.tolist(), strict=True):
        element = frame.where.find(number)
        value = None if element is None else element.value
        if values.setdefault(place, value) != value:
            return True
    return False


def _check_one_contrast(frames: Sequence[Frame]) -> None:
    if len(components_of(frames)) > 1:
        raise DicomError(
            "Some slices show magnitude, others the real part of the signal. Send the magnitude "
            "images of the scan.",
            code="mixed_contrast",
        )
    for number, word in (
        (tags.EFFECTIVE_ECHO_TIME, "echo time"),
        (tags.ECHO_TIME, "echo time"),
        (tags.B_VALUE, "b-value"),
    ):
        values = {frame.where.number(number) for frame in frames}
        known = [value for value in values if value is not None]
        if len(values) > 1 and (None in values or max(known) - min(known) > 0.01 * max(known)):
            raise DicomError(
                f"The slices were acquired with more than one {word}, so they are not one "
                "volume. Send slices of one scan.",
                code="mixed_contrast",
            )


def check_complete(files: Sequence[DicomFile], frames: Sequence[Frame], between_mm: float) -> None:
    """Refuse a series of which counts or numbers say that a part is missing.

    Parameters
    ----------
    files : of the series, each an image
    frames : one for each slice, no two at one place
    between_mm : distance of the slices

    Raises
    ------
    DicomError
        `incomplete_series`; the facts say how many images there should be, if known.
    """
    declared = [file.where.whole(number) for number in _COUNTS for file in files]
    expected = max((count for count in declared if count is not None), default=0)
    if expected > max(len(files), len(frames)):
        raise _incomplete(
            f"The series has {len(frames)} of {expected} images, by its own count.", expected
        )
    if len(files) == len(frames):
        _check_numbers(files, between_mm)
    _check_stack(frames)


def _check_stack(frames: Sequence[Frame]) -> None:
    """Frames of a multi-frame image are numbered by their places in the stack, from 1."""
    numbers = {frame.where.whole(tags.IN_STACK_POSITION) for frame in frames} - {None}
    last = max((number for number in numbers if number is not None), default=0)
    if len(numbers) == len(frames) and last > len(frames):
        raise _incomplete(f"The image has {len(frames)} of {last} slices of its stack.", last)


def _check_numbers(files: Sequence[DicomFile], between_mm: float) -> None:
    """Classic images are numbered; numbers that are left out belong to images that are, too."""
    numbers = sorted({n for f in files if (n := f.where.whole(tags.INSTANCE_NUMBER)) is not None})
    if len(numbers) < len(files):
        return  # without numbers, or one for several: they say nothing
    strides = sorted(b - a for a, b in pairwise(numbers))
    stride = strides[len(strides) // 2]
    if stride == 1:
        left_out = numbers[-1] - numbers[0] + 1 - len(numbers)
        if left_out:
            raise _incomplete(
                f"The InstanceNumbers leave out {left_out} of the images.",
                len(files) + left_out,
            )
        before = numbers[0] - 1
        if 0 < before < len(files):  # more: volumes before this one
            raise _incomplete(
                f"Images are missing at the start: InstanceNumber begins at {numbers[0]}.",
                len(files) + before,
            )
    elif stride > 1:
        stated = files[0].where.number(tags.BETWEEN_SLICES)
        if stated and abs(between_mm / (stride * stated) - 1) < 0.05:
            raise _incomplete(
                f"Of {stride} slices one is there, by InstanceNumber and SpacingBetweenSlices.",
                len(files) * stride,
            )


def _incomplete(what: str, expected: int) -> DicomError:
    return DicomError(f"{what} {_SEND}", code="incomplete_series", facts={"expected": expected})

"""One series of MR images that is one volume, or the reason why it is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from normbank.dicom import tags
from normbank.dicom.completeness import check_complete, check_instances, check_one_volume
from normbank.dicom.facts import facts_of
from normbank.dicom.files import DicomFile
from normbank.dicom.folder import files_in, one_series
from normbank.dicom.frames import Frame, frames_of
from normbank.dicom.geometry import check_planes, places_of, stack
from normbank.dicom.kinds import (
    check_kind,
    check_types,
    flags_of,
    is_enhanced,
)
from normbank.dicom.layout import Layout, check_length, layout_of
from normbank.dicom.pixels import Wanted, stored_frames
from normbank.entities import Flag
from normbank.errors import DicomError, TooLargeError
from normbank.imaging.finish import finished
from normbank.imaging.headers import MAX_DIMENSION, check_affine
from normbank.imaging.scan import Limits, Scan
from normbank.imaging.threads import in_threads

_READERS = 2  # threads; each may have a decoder's process


@dataclass(frozen=True, slots=True)
class Slice:
    """Where a slice of the volume comes from.

    Attributes
    ----------
    file : position among the series' files
    frame : number of the frame in that file, from 0
    sop_instance_uid : of the image
    slope, intercept : stored * slope + intercept
    """

    file: int
    frame: int
    sop_instance_uid: str
    slope: float
    intercept: float


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class DicomSeries:
    """One MR series that is one volume, checked; its voxels are not read yet.

    Attributes
    ----------
    files : in slice order; a single one of an enhanced multi-frame image
    headers : of each file, without pixels, with `file_meta`. Elements are understood when
        they are asked for. They hold what the files say of the patient
    shape : voxels (columns, rows, slices); the first axis runs along a row
    affine : (4, 4) float64 voxel to RAS+ mm, in float32 values so that a NIfTI copy has
        the same
    facts : of the scanner, see `normbank.dicom.facts`
    flags : what is doubtful about the images
    skipped : files in the folder that are no images
    slices : the source of each slice, in order
    """

    files: tuple[Path, ...]
    headers: tuple[pydicom.Dataset, ...]
    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    facts: Mapping[str, Any]
    flags: tuple[Flag, ...]
    skipped: int
    slices: tuple[Slice, ...]
    series_uid: str
    study_uid: str
    frame_of_reference_uid: str | None
    _sources: tuple[tuple[DicomFile, Layout], ...]

    @property
    def voxel_bytes(self) -> int:
        """Bytes of the voxels as they are stored, decompressed."""
        return sum(layout.frame_bytes * layout.frames for _, layout in self._sources)

    @property
    def enhanced(self) -> bool:
        """Whether all slices lie in one multi-frame image."""
        return is_enhanced(self._sources[0][0])

    def read(self) -> Scan:
        """The voxels: float32 (columns, rows, slices), rescaled, air at 0.

        Raises
        ------
        DicomError
            `broken_pixels` if they are damaged.
        EmptyScanError
            If they are all alike.
        """
        columns, rows, count = self.shape
        voxels = np.empty((count, rows, columns), np.float32)
        share = math.ceil(count / _READERS)
        runs = [range(i, min(i + share, count)) for i in range(0, count, share)]
        in_threads(lambda run: self._read_into(voxels, run), runs)
        return finished(voxels.transpose(2, 1, 0), self.affine, None, self.flags)

    def _read_into(self, voxels: npt.NDArray[np.float32], places: range) -> None:
        """Read some slices into their places."""
        wanted = [
            Wanted(*self._sources[one.file], one.frame)
            for one in self.slices[places.start : places.stop]
        ]
        for place, stored in zip(places, stored_frames(wanted), strict=True):
            one = self.slices[place]
            if one.slope == 1 and not one.intercept:
                voxels[place] = stored
            else:
                scaled = np.multiply(stored, one.slope, dtype=np.float64)
                scaled += one.intercept
                voxels[place] = scaled


def open_series(
    folder_or_file: Path, limits: Limits, *, series_uid: str | None = None, salt: bytes = b""
) -> DicomSeries:
    """Open the series in a folder, checked but for its voxels.

    Parameters
    ----------
    folder_or_file : with the images, whatever they are called, in any order; folders
        within it are searched, links are not followed
    series_uid : which series, where there are more
    salt : of the hash of the serial number among the facts

    Raises
    ------
    DicomError
        If it is no series of MR images that is one whole volume; its `code` says which
        of many reasons, its message what to do.
    TooLargeError
        If files or voxels are more than the service takes.
    GeometryError
        If no head can lie on the grid.
    """
    found, skipped = files_in(folder_or_file, limits)
    files, beside = one_series(found, series_uid)
    check_kind(files)
    check_instances(files)
    layouts = _layouts(files, limits)
    frames = frames_of(files)
    check_types(frames)
    check_planes(frames)
    check_one_volume(frames, places_of(frames))
    slices = stack(frames)
    check_complete(files, frames, slices.between_mm)
    reference = _frame_of_reference(files)
    ordered = [frames[i] for i in slices.order]
    shape = (layouts[0].columns, layouts[0].rows, len(ordered))
    check_affine(slices.affine, shape, limits)
    file_order = list(dict.fromkeys(frame.file for frame in ordered))
    headers = tuple(files[i].dataset() for i in file_order)
    return DicomSeries(
        files=tuple(files[i].path for i in file_order),
        headers=headers,
        shape=shape,
        affine=slices.affine,
        facts=facts_of(headers[0], salt),
        flags=flags_of(files, frames),
        skipped=skipped + beside,
        slices=_slices(files, ordered, file_order),
        series_uid=files[0].where.text(tags.SERIES) or "",
        study_uid=files[0].where.text(tags.STUDY) or "",
        frame_of_reference_uid=reference,
        _sources=tuple((files[i], layouts[i]) for i in file_order),
    )


def _slices(
    files: Sequence[DicomFile], ordered: Sequence[Frame], file_order: Sequence[int]
) -> tuple[Slice, ...]:
    place = {file: position for position, file in enumerate(file_order)}
    return tuple(
        Slice(
            place[frame.file],
            frame.index,
            files[frame.file].where.text(tags.SOP_INSTANCE) or "",
            frame.slope,
            frame.intercept,
        )
        for frame in ordered
    )


def _layouts(files: Sequence[DicomFile], limits: Limits) -> list[Layout]:
    """How each file stores its pixels, made sure that they are of one size and not too many."""
    layouts = [layout_of(file) for file in files]
    if len({(layout.rows, layout.columns) for layout in layouts}) > 1:
        raise DicomError(
            "The images differ in their numbers of rows or columns. Send slices of one scan.",
            code="mixed_matrix",
        )
    if len(files) > 1 and any(
        layout.frames > 1 or is_enhanced(f) for f, layout in zip(files, layouts, strict=True)
    ):
        raise DicomError(
            f"The series holds {len(files)} multi-frame images. Send one of them.",
            code="several_volumes",
            facts={"volumes": len(files), "by": ["SOPInstanceUID"]},
        )
    if layouts[0].frames > 1 and not is_enhanced(files[0]):
        raise DicomError(
            "A classic MR image holds several frames, which it cannot. Export the series as "
            "enhanced or as classic MR images.",
            code="missing_geometry",
        )
    voxels = sum(layout.rows * layout.columns * layout.frames for layout in layouts)
    biggest = max(layouts[0].rows, layouts[0].columns)
    if voxels > limits.max_voxels or biggest > MAX_DIMENSION:
        raise TooLargeError("The volume has more voxels than the service takes.")
    if sum(layout.frame_bytes * layout.frames for layout in layouts) > limits.max_volume_bytes:
        raise TooLargeError("The volume has more bytes than the service takes.")
    for file, layout in zip(files, layouts, strict=True):
        check_length(file, layout)
    return layouts


def _frame_of_reference(files: Sequence[DicomFile]) -> str | None:
    """The one that all images share; None where none names any."""
    for number, code, word in (
        (tags.FRAME_OF_REFERENCE, "mixed_frames_of_reference", "frames of reference"),
        (tags.STUDY, "mixed_studies", "studies"),
        (tags.PATIENT, "mixed_patients", "patients, by PatientID"),
    ):
        if len({file.where.text(number) for file in files}) > 1:
            raise DicomError(
                f"The images belong to several {word}; so nobody can say how they lie to each "
                "other. Send slices of one scan.",
                code=code,
            )
    return files[0].where.text(tags.FRAME_OF_REFERENCE)

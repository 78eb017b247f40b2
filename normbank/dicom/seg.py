"""Labels as a DICOM segmentation (SEG)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from normbank.dicom.answered import headers_for_answers, series_number
from normbank.dicom.centroids import check_centroids
from normbank.dicom.codes import (
    ANATOMICAL_STRUCTURE,
    LATERALITY,
    AnsweredStructure,
    Concept,
    answered_structures,
)
from normbank.dicom.provenance import MANUFACTURER, SERIES_DESCRIPTION, AnswerOrigin, SegKind
from normbank.dicom.series import DicomSeries
from normbank.errors import EmptyScanError
from normbank.imaging.masks import box_of, counted

SERIES_NUMBER_OFFSET = 5000
"""Added to the source's series number, so that viewers list the answer behind the scans."""


def write_seg(
    series: DicomSeries,
    ids: npt.NDArray[np.integer[Any]],
    origin: AnswerOrigin,
    *,
    kind: SegKind = "labelmap",
) -> Dataset:
    """A SEG with one segment per structure and side that was found.

    It refers to every source image, keeps their frame of reference, and where each structure
    lies by its own frames is held against the labels before it is returned.

    Parameters
    ----------
    series : the source images
    ids : (X, Y, Z), FreeSurfer ids on the grid of the series
    kind : `labelmap` (one number a voxel, RLE) or `binary` (one bit a voxel and segment,
        all frames)

    Raises
    ------
    EmptyScanError
        If there is no structure.
    MisplacedSegmentError
        If a structure does not lie where its label does.
    DicomError
        See `headers_for_answers`.
    """
    structures = answered_structures()
    found = np.flatnonzero(counted(ids[box_of(ids)], max(structures) + 1)).tolist()
    present = [structures[number] for number in found if number in structures]
    if not present:
        raise EmptyScanError("No structure was found, so there is no segmentation to write.")
    numbers = {structure.freesurfer_id: n for n, structure in enumerate(present, 1)}
    seg = _segmentation(series, _frames(series, ids, numbers), present, origin, kind)
    check_centroids(seg, ids, series.affine, numbers)
    return seg


def to_bytes(dataset: Dataset) -> bytes:
    """A data set as a file with its preamble."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _frames(
    series: DicomSeries, ids: npt.NDArray[np.integer[Any]], numbers: Mapping[int, int]
) -> npt.NDArray[np.uint8]:
    """Segment numbers by source frame, F rows columns."""
    table = np.zeros(int(ids.max()) + 1, np.uint8)
    table[list(numbers)] = list(numbers.values())
    frames = np.zeros(ids.shape[::-1], np.uint8)
    box = box_of(ids)
    frames.T[box] = table[ids[box]]
    if not series.enhanced:
        return frames
    by_frame = np.empty_like(frames)
    by_frame[[one.frame for one in series.slices]] = frames
    return by_frame


def _segmentation(
    series: DicomSeries,
    frames: npt.NDArray[np.uint8],
    present: Sequence[AnsweredStructure],
    origin: AnswerOrigin,
    kind: SegKind,
) -> Dataset:
    algorithm = _algorithm(origin)
    number = series_number(series, SERIES_NUMBER_OFFSET)
    seg: Dataset = hd.seg.Segmentation(
        source_images=headers_for_answers(series),
        pixel_array=frames,
        segmentation_type=kind.upper(),
        segment_descriptions=[
            _describe(number, structure, algorithm, origin)
            for number, structure in enumerate(present, 1)
        ],
        series_instance_uid=origin.uid("seg-series"),
        series_number=number,
        sop_instance_uid=origin.uid("seg"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=origin.software_version,
        device_serial_number=origin.serial_number,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=False,
        content_label="NORMBANK",
        content_description="Brain structures, research use only",
        contributing_equipment=[_equipment(origin)],
    )
    seg.SeriesDescription = SERIES_DESCRIPTION
    tidy(seg)
    if kind == "labelmap":
        # Asked for by name: GDCM's encoder ends the process at odd sizes, pydicom's is slow.
        seg.compress(RLELossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    return seg


def coded(concept: Concept) -> hd.sr.CodedConcept:
    """An item of its own: data sets must not share one."""
    return hd.sr.CodedConcept(concept.value, concept.scheme, concept.meaning)


def tidy(written: Dataset) -> None:
    """Take away what a series may have and these objects must not, or not empty."""
    written.pop("RequestingService", None)
    if "ProcedureCodeSequence" in written and not written.ProcedureCodeSequence:
        del written.ProcedureCodeSequence


def _algorithm(origin: AnswerOrigin) -> Any:
    return hd.AlgorithmIdentificationSequence(
        name=MANUFACTURER,
        family=codes.DCM.ArtificialIntelligence,
        version=origin.software_version,
        source=MANUFACTURER,
        parameters=origin.parameters,
    )


def _equipment(origin: AnswerOrigin) -> Any:
    return hd.ContributingEquipment(
        MANUFACTURER,
        codes.DCM.ProcessingEquipment,
        manufacturer_model_name=MANUFACTURER,
        software_versions=origin.software_version,
        contribution_description=f"domain {origin.domain}@{origin.version}, research use",
    )


def _describe(
    number: int, structure: AnsweredStructure, algorithm: Any, origin: AnswerOrigin
) -> Any:
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=structure.label,
        segmented_property_category=coded(ANATOMICAL_STRUCTURE),
        segmented_property_type=coded(structure.concept),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_uid=origin.uid(f"segment-{structure.name}"),
        tracking_id=structure.name,
        display_color=hd.color.CIELabColor.from_rgb(*structure.rgb),
    )
    if structure.side is not None:
        kind = described.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [coded(LATERALITY[structure.side])]
    return described

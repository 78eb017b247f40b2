"""Volumes as a structured report (TID 1500)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import highdicom as hd
from pydicom import Dataset
from pydicom.sr.codedict import codes

from normbank.dicom.answered import headers_for_answers, series_number
from normbank.dicom.codes import (
    ANATOMICAL_STRUCTURE,
    LATERALITY,
    AnsweredStructure,
    Concept,
    answered_structures,
)
from normbank.dicom.provenance import MANUFACTURER, REPORT_DESCRIPTION, AnswerOrigin
from normbank.dicom.seg import SERIES_NUMBER_OFFSET, coded, tidy
from normbank.dicom.series import DicomSeries

MR_OF_THE_BRAIN = Concept("24590-2", "LN", "MR Brain")


def write_report(
    series: DicomSeries, seg: Dataset, volumes_mm3: Mapping[str, float], origin: AnswerOrigin
) -> Dataset:
    """A report that gives the volume of each segment and refers to it.

    Parameters
    ----------
    seg : from `write_seg`, of the same answer
    volumes_mm3 : by name, such as `left-hippocampus`
    """
    named = {structure.name: structure for structure in answered_structures().values()}
    source = str(series.headers[0].SeriesInstanceUID)
    groups = [
        _measured(seg, source, described, named[described.TrackingID], volumes_mm3, origin)
        for described in seg.SegmentSequence
        if described.SegmentNumber > 0  # a label map has its background there too
    ]
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=_observer(origin)),
        procedure_reported=coded(MR_OF_THE_BRAIN),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    number = series_number(series, SERIES_NUMBER_OFFSET + 1)
    written: Dataset = hd.sr.Comprehensive3DSR(
        evidence=[*headers_for_answers(series), seg],
        content=report,
        series_instance_uid=origin.uid("report-series"),
        series_number=number,
        sop_instance_uid=origin.uid("report"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    written.SeriesDescription = REPORT_DESCRIPTION
    tidy(written)
    return written


def _observer(origin: AnswerOrigin) -> Any:
    identity = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=origin.uid("device"),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=MANUFACTURER,
        serial_number=origin.serial_number,
    )
    return hd.sr.ObserverContext(
        observer_type=codes.DCM.Device, observer_identifying_attributes=identity
    )


def _measured(
    seg: Dataset,
    source: str,
    described: Dataset,
    structure: AnsweredStructure,
    volumes_mm3: Mapping[str, float],
    origin: AnswerOrigin,
) -> Any:
    """The group of one segment: what it is, where it is drawn, how large it is."""
    side = None if structure.side is None else coded(LATERALITY[structure.side])
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=described.TrackingUID, identifier=described.TrackingID
        ),
        referenced_segment=hd.sr.ReferencedSegment(
            seg.SOPClassUID,
            seg.SOPInstanceUID,
            described.SegmentNumber,
            source_series=hd.sr.SourceSeriesForSegmentation(source),
        ),
        finding_category=coded(ANATOMICAL_STRUCTURE),
        finding_type=coded(structure.concept),
        finding_sites=[hd.sr.FindingSite(coded(structure.concept), laterality=side)],
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=MANUFACTURER,
            version=origin.software_version,
            parameters=[f"{name}={value}" for name, value in origin.parameters.items()],
        ),
        measurements=[
            hd.sr.Measurement(
                name=codes.SCT.Volume,
                value=round(volumes_mm3[structure.name], 1),
                unit=codes.UCUM.CubicMillimeter,
            )
        ],
    )

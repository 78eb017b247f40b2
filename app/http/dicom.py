"""Answers in DICOM: a segmentation, or that and a report of its volumes."""

from __future__ import annotations

import math
import secrets

from fastapi.responses import Response

from app.http.errors import NotAcceptableError
from app.http.negotiation import DICOM, GZIP, RELATED
from normbank.dicom.provenance import AnswerOrigin, SegKind
from normbank.dicom.series import DicomSeries
from normbank.imaging.scan import Grid
from pipeline.record import RecordedAnswer


def answer_dicom(
    answer: RecordedAnswer, media_type: str, kind: SegKind, headers: dict[str, str]
) -> Response:
    """The answer for a DICOM series as `application/dicom` or `multipart/related`.

    Raises
    ------
    EmptyScanError, MisplacedSegmentError
        See `write_seg`.
    """
    # Imported late: who never answers in DICOM shall not wait for highdicom at the start.
    from normbank.dicom.report import write_report
    from normbank.dicom.seg import to_bytes, write_seg

    series, origin = series_of(answer), AnswerOrigin.of_record(answer.record)
    seg = write_seg(series, answer.ids, origin, kind=kind)
    if media_type == DICOM:
        name = f'attachment; filename="seg-{answer.record.id}.dcm"'
        headers = {**headers, "Content-Disposition": name}
        return Response(to_bytes(seg), media_type=DICOM, headers=headers)
    report = write_report(series, seg, answer.record.summary.volumes_mm3, origin)
    return _related([to_bytes(seg), to_bytes(report)], headers)


def dicom_bytes(grid: Grid, kind: SegKind) -> int:
    """Memory that a SEG takes, with the file it is written to: at most 32 segments."""
    return (4 if kind == "labelmap" else 12) * math.prod(grid.shape)


def series_of(answer: RecordedAnswer) -> DicomSeries:
    """The series an answer is for; NotAcceptableError where the scan was no DICOM."""
    if not isinstance(answer.source, DicomSeries):
        raise needs_dicom()
    return answer.source


def needs_dicom() -> NotAcceptableError:
    return NotAcceptableError(
        "Only a scan that came as DICOM can be answered in DICOM.",
        facts={"offered": [GZIP, "application/json"]},
    )


def _related(files: list[bytes], headers: dict[str, str]) -> Response:
    """Files as parts of one body (RFC 2387), as DICOMweb has them."""
    boundary = secrets.token_hex(16)
    parts = [
        f"--{boundary}\r\nContent-Type: {DICOM}\r\nContent-Length: {len(file)}\r\n\r\n".encode()
        + file
        + b"\r\n"
        for file in files
    ]
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    kind = f'{RELATED}; type="{DICOM}"; boundary={boundary}'
    return Response(body, headers={**headers, "Content-Type": kind})

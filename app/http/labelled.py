"""Labelled cases as they come in: paired, read and checked before any is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from app.http.forms import Form, Upload
from app.http.series import is_dicom_upload, kept_beside, unpacked, without_patient
from normbank.anatomy import (
    PROTOCOLS_DISAGREE,
    STRUCTURES,
    labels_to_classes,
    members_of,
    present_structures,
)
from normbank.budget import MemoryBudget
from normbank.dicom.references import read_seg_labels
from normbank.dicom.series import DicomSeries
from normbank.entities import NewCase
from normbank.entities.flags import severe_ones
from normbank.errors import ConflictError, InvalidError, NormbankError
from normbank.imaging.memory import labelled_bytes
from normbank.imaging.nifti import (
    check_same_grid,
    check_same_shape,
    peek_header,
    read_labels,
    write_labels,
)
from normbank.imaging.reorder import reordered_like
from normbank.imaging.scan import LabelVolume, Limits, Scan, voxels_sha256
from normbank.source import DICOM, ZIP, ScanSource, open_source
from normbank.storage.blobs import BlobStore
from pipeline.label_check import CheckedLabels, Look, check_labels, compare_with_looks


@dataclass(frozen=True, slots=True)
class CheckedPair:
    """A pair of files that can be stored, and what will be recorded of it."""

    scan: Upload
    labels: Upload
    case: NewCase


@dataclass(frozen=True, slots=True)
class CaseTerms:
    """What labelled cases have to be like.

    Attributes
    ----------
    structures : the annotated ones; empty: those present in each case,
        but for those that label protocols disagree about
    looks : of the stored states
    mapping : segment of a DICOM SEG, by label or number -> id of the scheme, where its codes
        do not say
    accept_doubtful : take labels that seem not to be those of their scan
    """

    scheme: str
    structures: Sequence[str]
    limits: Limits
    memory: MemoryBudget
    spacing_mm: float
    looks: list[Look]
    mapping: Mapping[str, int] = field(default_factory=dict)
    accept_doubtful: bool = False


def check_pairs(form: Form, terms: CaseTerms) -> list[CheckedPair]:
    """Read every pair of `scans` and `labels` and check that they can be learnt from.

    Raises
    ------
    InvalidError
        `unpaired_cases`, `doubtful_labels`, or whatever is wrong with a file;
        facts name the `pair` (from 0) and the `file` (`scan` or `labels`).
    """
    scans, labels = form.files.get("scans", []), form.files.get("labels", [])
    if len(scans) != len(labels):
        raise InvalidError(
            "Scans and labels come in pairs, in the same order.",
            code="unpaired_cases",
            facts={"scans": len(scans), "labels": len(labels)},
        )
    _check_distinct(scans)
    pairs = zip(scans, labels, strict=True)
    return [_check_pair(number, scan, label, terms) for number, (scan, label) in enumerate(pairs)]


def check_mapping(document: Mapping[str, object]) -> dict[str, int]:
    """Ids by segment; InvalidError `bad_label_mapping` where one is no whole number."""
    mapping = {
        segment: number
        for segment, number in document.items()
        if isinstance(number, int) and not isinstance(number, bool) and number > 0
    }
    if len(mapping) < len(document):
        raise InvalidError(
            "The label mapping gives an id of the scheme, a positive whole number, for the label "
            "or number of a segment.",
            code="bad_label_mapping",
        )
    return mapping


def _check_distinct(scans: Sequence[Upload]) -> None:
    seen: dict[str, int] = {}
    for number, scan in enumerate(scans):
        first = seen.setdefault(scan.sha256, number)
        if first != number:
            raise ConflictError(
                "The same scan was sent twice.",
                code="case_exists",
                facts={"pair": number, "same_as": first},
            )


def _check_pair(
    number: int, scan_file: Upload, labels_file: Upload, terms: CaseTerms
) -> CheckedPair:
    with _blamed(number, "scan"), unpacked(scan_file, terms.limits) as path:
        source = open_source(path, terms.limits)
        needed = labelled_bytes(source, terms.spacing_mm)
        with terms.memory.reserved(needed):
            return _read_pair(number, source, scan_file, labels_file, terms)


def _read_pair(
    number: int, source: ScanSource, scan_file: Upload, labels_file: Upload, terms: CaseTerms
) -> CheckedPair:
    with _blamed(number, "scan"):
        scan = source.read()
    with _blamed(number, "labels"):
        labels = _read_labels(source, labels_file, terms)
        check_same_grid(scan, labels)
        labels_to_classes(labels.data, terms.scheme, STRUCTURES)
        present = present_structures(labels.data, terms.scheme)
        sure = tuple(name for name in present if name not in PROTOCOLS_DISAGREE)
        annotated = tuple(terms.structures) or sure
        if not members_of(annotated) & set(present):
            raise InvalidError(
                "The labels hold none of the structures they should.", code="no_structures"
            )
        checked = _check_match(scan, labels, terms)
    if is_dicom_upload(scan_file):  # then the labels may have come in another order, or as SEG
        scan_file = without_patient(scan, scan_file)
        labels_file = kept_beside(write_labels(labels.data, scan), labels_file)
    case = NewCase(
        scan_sha256=scan_file.sha256,
        labels_sha256=labels_file.sha256,
        scan_name=scan_file.name.replace("scans", "scan", 1),
        labels_name=labels_file.name,
        label_scheme=terms.scheme,
        structures=annotated,
        shape=scan.shape,
        spacing_mm=scan.spacing_mm,
        voxels_sha256=voxels_sha256(scan),
        volumes_ml={name: round(ml, 3) for name, ml in checked.volumes_ml.items()},
        flags=checked.flags,
    )
    return CheckedPair(scan_file, labels_file, case)


def _read_labels(source: ScanSource, labels_file: Upload, terms: CaseTerms) -> LabelVolume:
    """Labels on the grid of their scan, whatever file they came in.

    Raises
    ------
    InvalidError
        `seg_without_series` for a SEG whose scan is no DICOM; see `read_seg_labels`.
    """
    if labels_file.name.endswith(ZIP):
        raise InvalidError("Send a SEG as it is, not in a zip.", code="zipped_labels")
    if not labels_file.name.endswith(DICOM):
        if not isinstance(source, DicomSeries):
            shape = peek_header(labels_file.path, terms.limits).shape
            check_same_shape(source.shape, shape)
            return read_labels(labels_file.path, terms.limits)
        return reordered_like(read_labels(labels_file.path, terms.limits), source)
    if not isinstance(source, DicomSeries):
        raise InvalidError(
            "A SEG belongs to a DICOM series: send that as the scan.", code="seg_without_series"
        )
    return read_seg_labels(
        labels_file.path, source, terms.limits, terms.scheme, terms.mapping or None
    )


def _check_match(scan: Scan, labels: LabelVolume, terms: CaseTerms) -> CheckedLabels:
    """Whether labels are those of their scan; a stored state that agrees is enough.

    Raises
    ------
    InvalidError
        `doubtful_labels`, with the flags, unless the terms accept them.
    """
    checked = check_labels(scan, labels, terms.scheme)
    flags = (*scan.flags, *checked.flags)
    if not severe_ones(flags):
        flags = (*flags, *compare_with_looks(scan, labels, terms.scheme, terms.looks))
    severe = severe_ones(flags)
    if severe and not terms.accept_doubtful:
        raise InvalidError(
            " ".join(flag.detail for flag in severe),
            code="doubtful_labels",
            facts={"flags": [flag.to_json() for flag in flags]},
        )
    return replace(checked, flags=flags)


@contextmanager
def _blamed(number: int, file: str) -> Iterator[None]:
    """Let an error say which file of which pair it is about."""
    try:
        yield
    except NormbankError as error:
        error.facts = {"pair": number, "file": file} | error.facts  # the innermost one knows
        raise


def store_pairs(pairs: Sequence[CheckedPair], blobs: BlobStore) -> tuple[NewCase, ...]:
    """Put the files where the cases say they are."""
    for pair in pairs:
        blobs.put_file(pair.scan.path)
        blobs.put_file(pair.labels.path)
    return tuple(pair.case for pair in pairs)

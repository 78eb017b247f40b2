"""Labelled cases as they come in: paired, read and checked before any is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from app.http.forms import Form, Upload
from normbank.anatomy import (
    PROTOCOLS_DISAGREE,
    STRUCTURES,
    labels_to_classes,
    members_of,
    present_structures,
)
from normbank.budget import MemoryBudget
from normbank.entities import NewCase
from normbank.entities.flags import severe_ones
from normbank.errors import ConflictError, InvalidError, NormbankError
from normbank.imaging.memory import labelled_bytes
from normbank.imaging.nifti import (
    check_same_grid,
    check_same_shape,
    peek_header,
    read_labels,
    read_scan,
)
from normbank.imaging.scan import LabelVolume, Limits, Scan, voxels_sha256
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
    accept_doubtful : take labels that seem not to be those of their scan
    """

    scheme: str
    structures: Sequence[str]
    limits: Limits
    memory: MemoryBudget
    spacing_mm: float
    looks: list[Look]
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
    with _blamed(number, "scan"):
        needed = labelled_bytes(peek_header(scan_file.path, terms.limits), terms.spacing_mm)
        with terms.memory.reserved(needed):
            return _read_pair(number, scan_file, labels_file, terms)


def _read_pair(
    number: int, scan_file: Upload, labels_file: Upload, terms: CaseTerms
) -> CheckedPair:
    with _blamed(number, "scan"):
        scan = read_scan(scan_file.path, terms.limits)
    with _blamed(number, "labels"):
        check_same_shape(scan.shape, peek_header(labels_file.path, terms.limits).shape)
        labels = read_labels(labels_file.path, terms.limits)
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

"""Labelled cases as they come in: paired, read and checked before any is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from app.http.forms import Form, Upload
from normbank.anatomy import (
    PROTOCOLS_DISAGREE,
    STRUCTURES,
    labels_to_classes,
    members_of,
    present_structures,
)
from normbank.entities import NewCase
from normbank.errors import ConflictError, InvalidError, NormbankError
from normbank.imaging.nifti import check_same_grid, read_labels, read_scan
from normbank.imaging.scan import Limits
from normbank.storage.blobs import BlobStore


@dataclass(frozen=True, slots=True)
class CheckedPair:
    """A pair of files that can be stored, and what will be recorded of it."""

    scan: Upload
    labels: Upload
    case: NewCase


def check_pairs(
    form: Form, scheme: str, structures: Sequence[str], limits: Limits
) -> list[CheckedPair]:
    """Read every pair of `scans` and `labels` and check that they can be learnt from.

    Parameters
    ----------
    structures : the annotated ones; empty: those present in each case,
        but for those that label protocols disagree about

    Raises
    ------
    InvalidError
        `unpaired_cases`, or whatever is wrong with a file; facts name the
        `pair` (from 0) and the `file` (`scan` or `labels`).
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
    return [
        _check_pair(number, scan, label, scheme, structures, limits)
        for number, (scan, label) in enumerate(pairs)
    ]


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
    number: int,
    scan_file: Upload,
    labels_file: Upload,
    scheme: str,
    structures: Sequence[str],
    limits: Limits,
) -> CheckedPair:
    with _blamed(number, "scan"):
        scan = read_scan(scan_file.path, limits)
    with _blamed(number, "labels"):
        labels = read_labels(labels_file.path, limits)
        check_same_grid(scan, labels)
        labels_to_classes(labels.data, scheme, STRUCTURES)
        present = present_structures(labels.data, scheme)
        sure = tuple(name for name in present if name not in PROTOCOLS_DISAGREE)
        annotated = tuple(structures) or sure
        if not members_of(annotated) & set(present):
            raise InvalidError(
                "The labels hold none of the structures they should.", code="no_structures"
            )
    case = NewCase(
        scan_sha256=scan_file.sha256,
        labels_sha256=labels_file.sha256,
        scan_name=scan_file.name.replace("scans", "scan", 1),
        labels_name=labels_file.name,
        label_scheme=scheme,
        structures=annotated,
        shape=scan.shape,
        spacing_mm=scan.spacing_mm,
    )
    return CheckedPair(scan_file, labels_file, case)


@contextmanager
def _blamed(number: int, file: str) -> Iterator[None]:
    """Let an error say which file of which pair it is about."""
    try:
        yield
    except NormbankError as error:
        error.facts |= {"pair": number, "file": file}
        raise


def store_pairs(pairs: Sequence[CheckedPair], blobs: BlobStore) -> tuple[NewCase, ...]:
    """Put the files where the cases say they are."""
    for pair in pairs:
        blobs.put_file(pair.scan.path)
        blobs.put_file(pair.labels.path)
    return tuple(pair.case for pair in pairs)

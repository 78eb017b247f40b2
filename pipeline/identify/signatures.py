"""What a domain's labelled cases look like, for the version that learns from them."""

from __future__ import annotations

from collections.abc import Iterable

from normbank.entities import Signature
from normbank.errors import EmptyScanError
from normbank.imaging.scan import Scan
from pipeline.identify.identifier import Identifier


def signature_of(scans: Iterable[Scan], identifier: Identifier) -> Signature | None:
    """The signature of some scans of one scanner.

    Parameters
    ----------
    scans : read one after another, so that a generator needs the memory of one

    Returns
    -------
    None where fewer than two of them hold anything
    """
    places = []
    for scan in scans:
        try:
            places.append(identifier.place(scan))
        except EmptyScanError:
            continue  # it says nothing about the scanner
    return identifier.signature(places) if len(places) > 1 else None

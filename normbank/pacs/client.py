"""A PACS, as the rest of normbank sees it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from pydicom.dataset import Dataset

from normbank.errors import SeriesError
from normbank.imaging.scan import Limits
from normbank.pacs import query, retrieve
from normbank.pacs import store as storing
from normbank.pacs.config import Pacs
from normbank.pacs.http import PacsHttp
from normbank.pacs.query import Facts, FoundSeries
from normbank.pacs.retrieve import OnInstance


class PacsClient:
    """QIDO-RS, WADO-RS and STOW-RS of one PACS; a context manager.

    Every method raises PacsUnreachableError when the PACS is away after a few
    attempts, and PacsRefusedError when it answers and refuses.

    Parameters
    ----------
    pacs : from the PACS file
    limits : of the series that are fetched
    """

    def __init__(self, pacs: Pacs, limits: Limits) -> None:
        self.pacs = pacs
        self.http = PacsHttp(pacs)
        self._limits = limits

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.__exit__()

    def find_series(self, filters: Mapping[str, str]) -> Iterator[FoundSeries]:
        """Series that fit QIDO-RS filters, page by page."""
        return query.find_series(self.http, filters)

    def series(self, study: str, series: str) -> FoundSeries | None:
        """One series; None where the PACS has none of these UIDs."""
        return query.find_one(self.http, study, series)

    def instances(self, study: str, series: str) -> tuple[str, ...]:
        """SOP instance UIDs of a series, sorted; empty where it is not there."""
        return query.instances_of(self.http, study, series)

    def header(self, study: str, series: str, instance: str) -> Facts:
        """Facts of one instance's header by DICOM keyword; nothing of the patient."""
        return query.header_of(self.http, study, series, instance)

    def fetch(
        self,
        study: str,
        series: str,
        folder: Path,
        *,
        on_instance: OnInstance = lambda _count: None,
    ) -> int:
        """Receive a whole series into the files of an empty folder; how many there are.

        Raises
        ------
        SeriesError
            `series_empty`; `series_incomplete` when the PACS lists other
            instances than it sends.
        TooLargeError
            If it has more bytes than a volume may have.
        """
        limits, listed = self._limits, len(self.instances(study, series))
        count = retrieve.fetch_series(
            self.http, study, series, folder, limits, on_instance=on_instance
        )
        if listed and count != listed:
            raise SeriesError(
                f"The PACS '{self.pacs.name}' lists {listed} instances of the series and sent "
                f"{count}: wait until it has arrived there as a whole, then try again.",
                code="series_incomplete",
            )
        return count

    def store(self, study: str, objects: Sequence[Dataset]) -> None:
        """Store results in their study, and wait until the PACS lists them.

        Raises
        ------
        StoreRejectedError
            With the PACS's own reason.
        """
        storing.store(self.http, study, objects)
        storing.confirm(self.http, study, objects)

    def lists(self, study: str, places: Collection[tuple[str, str]]) -> bool:
        """Whether the PACS has all of these objects (UIDs of series and instance)."""
        return not storing.not_listed(self.http, study, places)

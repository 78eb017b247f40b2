"""What is new in a PACS: by Orthanc's list of changes, or by asking again and again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from normbank.entities.pacs import SeenSeries
from normbank.errors import PacsRefusedError
from normbank.pacs.client import PacsClient
from normbank.pacs.config import is_uid

PAGE = 1000
_TELLING = ("NewInstance", "NewSeries", "StableSeries", "UpdatedMetadata", "UpdatedAttachment")
_ROOT = "/dicom-web"


@dataclass(frozen=True, slots=True)
class News:
    """What a look has brought.

    Attributes
    ----------
    seen : series that are new or may have changed
    cursor : where the next look begins
    more : whether there is more to be had at once
    """

    seen: tuple[SeenSeries, ...]
    cursor: int
    more: bool = False


class Source(Protocol):
    """Tells what is new in a PACS."""

    def look(self, cursor: int) -> News:
        """What came after `cursor`; raises PacsError."""


class OrthancChanges:
    """Orthanc's own list of changes, in which nothing is missing.

    What is stable is decided by our own count: Orthanc forgets about series
    that were not stable yet when it was stopped.

    Parameters
    ----------
    client : whose DICOMweb services lie beside Orthanc's REST API
    root : of that API
    """

    def __init__(self, client: PacsClient, root: str) -> None:
        self._client, self._root = client, root
        self._days = client.pacs.watch_days

    def look(self, cursor: int) -> News:
        if self.last() < cursor:  # another database than the one that was followed
            cursor = 0
        with self._understood():
            page = self._get(f"changes?since={cursor}&limit={PAGE}")
            changes = page["Changes"]
            identifiers = {one["ID"] for one in changes if self._tells(one)}
            moved = int(changes[-1]["Seq"]) if changes else cursor
            more = not page["Done"] and moved > cursor
            return News(tuple(self._series_of(identifiers)), moved, more)

    def last(self) -> int:
        """Number of the newest change; 0: there is none."""
        with self._understood():
            return int(self._get("changes?last")["Last"])

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Say in words that an answer is none of Orthanc's, whatever it is."""
        try:
            yield
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise PacsRefusedError(
                f"The PACS '{self._client.pacs.name}' did not answer with a list of changes as "
                "Orthanc does."
            ) from error

    def _tells(self, change: dict[str, Any]) -> bool:
        if change["ChangeType"] not in _TELLING:
            return False
        if change["ResourceType"] not in ("Series", "Instance"):
            return False
        if not self._days:
            return True
        received = datetime.strptime(change["Date"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        # By Orthanc's own clock, which is that of its time zone.
        return received > datetime.now(UTC) - timedelta(days=self._days + 1)

    def _series_of(self, identifiers: Iterable[str]) -> list[SeenSeries]:
        """The MR series that resources of any level belong to; what was deleted has none."""
        wanted = sorted(identifiers)
        if not wanted:
            return []
        series = self._bulk(wanted, "Series")
        parents = self._bulk(sorted({one["ParentStudy"] for one in series}), "Study")
        studies = {one["ID"]: one["MainDicomTags"]["StudyInstanceUID"] for one in parents}
        return [
            SeenSeries(
                studies[one["ParentStudy"]],
                one["MainDicomTags"]["SeriesInstanceUID"],
                changed=True,
            )
            for one in series
            if one["MainDicomTags"].get("Modality", "MR") == "MR"
            and is_uid(studies.get(one["ParentStudy"], ""))
            and is_uid(one["MainDicomTags"]["SeriesInstanceUID"])
        ]

    def _bulk(self, identifiers: list[str], level: str) -> list[dict[str, Any]]:
        content = {"Resources": identifiers, "Level": level}
        return list(self._json("POST", "tools/bulk-content", content))

    def _get(self, path: str) -> Any:
        return self._json("GET", path)

    def _json(self, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
        return self._client.http.ask_json(method, f"{self._root}/{path}", content)


class QidoPolling:
    """Every MR series of the last days, by QIDO-RS; for any PACS.

    A PACS that does not say how many instances a series has is asked about
    each series once, and of its growth nothing is heard.
    """

    def __init__(self, client: PacsClient) -> None:
        self._client = client

    def look(self, cursor: int) -> News:
        filters = {"Modality": "MR"}
        if days := self._client.pacs.watch_days:
            since = datetime.now(UTC) - timedelta(days=days + 1)
            filters["StudyDate"] = f"{since:%Y%m%d}-"
        found = self._client.find_series(filters)
        seen = tuple(SeenSeries(one.study, one.series, one.count) for one in found)
        return News(seen, cursor)


def open_source(client: PacsClient) -> Source:
    """How a PACS is followed, as its entry says.

    Raises
    ------
    PacsUnreachableError
    PacsRefusedError
        If Orthanc's list of changes is wanted and cannot be read.
    """
    how, url = client.pacs.follow, client.pacs.dicomweb_url
    if how == "qido":
        return QidoPolling(client)
    root = url.removesuffix(_ROOT)
    changes = OrthancChanges(client, root)
    try:
        changes.last()
    except PacsRefusedError as error:
        if how == "auto":
            return QidoPolling(client)
        raise PacsRefusedError(
            f"The PACS '{client.pacs.name}' has no list of changes beside its DICOMweb services: "
            "say follow = 'qido'."
        ) from error
    return changes

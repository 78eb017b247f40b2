"""QIDO-RS and metadata: which series a PACS has, and what their headers say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName

from normbank.dicom.facts import facts_of
from normbank.errors import PacsRefusedError
from normbank.pacs.config import is_uid
from normbank.pacs.http import PacsHttp

PAGE = 200
PATIENT_GROUP = 0x0010
COUNT = "NumberOfSeriesRelatedInstances"
_SHARED = "SharedFunctionalGroupsSequence"

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """A series that a PACS lists.

    Attributes
    ----------
    study, series : UIDs
    modality : such as MR; empty: the PACS does not say
    count : its instances; None: the PACS does not say
    """

    study: str
    series: str
    modality: str
    count: int | None


def find_series(http: PacsHttp, filters: Mapping[str, str]) -> Iterator[FoundSeries]:
    """Series that fit, page by page.

    Parameters
    ----------
    filters : QIDO-RS, for example `{"Modality": "MR"}`

    Raises
    ------
    PacsUnreachableError, PacsRefusedError
    """
    for row in _pages(http, "series", {**filters, "includefield": COUNT}):
        study, series = (str(row.get(f"{level}InstanceUID")) for level in ("Study", "Series"))
        if is_uid(study) and is_uid(series):
            modality = str(row.get("Modality") or "")
            yield FoundSeries(study, series, modality, _whole(row.get(COUNT)))


def find_one(http: PacsHttp, study: str, series: str) -> FoundSeries | None:
    """One series; None where the PACS has none of these UIDs."""
    filters = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
    return next((one for one in find_series(http, filters) if one.series == series), None)


def instances_of(http: PacsHttp, study: str, series: str) -> tuple[str, ...]:
    """SOP instance UIDs of a series, sorted; empty where it is not there."""
    path = f"studies/{study}/series/{series}/instances"
    rows = _pages(http, path, {}, expected=(404,))
    return tuple(sorted({str(row.SOPInstanceUID) for row in rows if "SOPInstanceUID" in row}))


def header_of(http: PacsHttp, study: str, series: str, instance: str) -> Facts:
    """What the header of one instance says about scanner and protocol.

    By DICOM keyword; what BIDS knows has its name and unit, see `normbank.dicom.facts`, so
    that one language of rules means the same everywhere.
    """
    path = f"studies/{study}/series/{series}/instances/{instance}/metadata"
    rows = _datasets(http, http.ask("GET", path))
    return {**_keywords_of(rows[0]), **facts_of(rows[0], b"")} if rows else {}


def _keywords_of(dataset: Dataset) -> dict[str, Any]:
    """Standard attributes by keyword; nothing of the patient, no names, no private ones.

    Numbers are numbers, several values a list. What all frames of a
    multi-frame image share stands beside the rest.
    """
    facts: dict[str, Any] = {}
    for element in dataset:
        if element.tag.group == PATIENT_GROUP or element.tag.is_private or not element.keyword:
            continue
        if element.VR == "SQ":
            if element.keyword == _SHARED:
                for group in element.value:
                    for inner in (one for one in group if one.VR == "SQ" and one.value):
                        facts = {**_keywords_of(inner.value[0]), **facts}
            continue
        value = _plain(element.value)
        if value is not None:
            facts[element.keyword] = value
    facts.pop("DeviceSerialNumber", None)  # which is nobody's to match without the salt
    return facts


def _plain(value: Any) -> Any:
    """A value as JSON has it; None where it holds nothing, a name or bytes."""
    if isinstance(value, (PersonName, bytes)) or value is None or value == "":
        return None
    if isinstance(value, (MultiValue, list)):
        return [item for item in map(_plain, value) if item is not None]
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if hasattr(value, "__float__") else str(value)


def _pages(
    http: PacsHttp, path: str, filters: Mapping[str, str], expected: tuple[int, ...] = ()
) -> Iterator[Dataset]:
    """Every row of a query; a PACS that knows no pages sends the first one again."""
    offset = 0
    seen: set[str] = set()
    while True:
        paging = {"limit": str(PAGE), "offset": str(offset)}
        rows = _datasets(
            http, http.ask("GET", path, params={**filters, **paging}, expected=expected)
        )
        fresh = [(key, row) for row in rows if (key := _key(row)) not in seen]
        for key, row in fresh:
            seen.add(key)
            yield row
        offset += len(rows)
        if len(rows) < PAGE or not fresh:
            return


def _key(row: Dataset) -> str:
    return str(row.get("SOPInstanceUID") or row.get("SeriesInstanceUID"))


def _datasets(http: PacsHttp, response: httpx.Response) -> list[Dataset]:
    """The datasets of a JSON answer; none for 204 and 404.

    Raises
    ------
    PacsRefusedError
        If it is no DICOM JSON.
    """
    if response.status_code in (204, 404) or not response.content:
        return []
    try:
        rows = response.json()
        return [Dataset.from_json(row, _no_bulk_data) for row in rows]
    except Exception as error:  # pydicom raises whatever a wrong value leads to
        raise PacsRefusedError(
            f"The PACS '{http.name}' did not answer with DICOM JSON: is dicomweb_url the root "
            "of its DICOMweb services?"
        ) from error


def _no_bulk_data(_tag: str, _vr: str, _uri: str) -> None:
    """Pixels and the like are not fetched with a header."""


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None

"""What is asked of whoever segments a series, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydicom.dataset import Dataset


@dataclass(frozen=True, slots=True)
class SeriesRequest:
    """One series, whose files lie in a folder.

    Attributes
    ----------
    folder : of the files, of this series alone
    series : its UID
    domain : an id, or `auto`
    kind : of the SEG
    report : whether a TID 1500 report is wanted beside it
    job_id : of the job that asks
    on_progress : hears how far it is, 0 to 1, and what is done; raises when it shall end
    """

    folder: Path
    series: str
    domain: str
    kind: Literal["labelmap", "binary"]
    report: bool
    job_id: str
    on_progress: Callable[[float, str], None]


@dataclass(frozen=True, slots=True, eq=False)
class SeriesAnswer:
    """What was answered for a series.

    Attributes
    ----------
    make_objects : makes what a PACS can store, the SEG first, then the report; called
        only where something is to be stored, with the key that gives them their UIDs, see
        `normbank.dicom.provenance.AnswerOrigin`
    domain, version : what answered
    reason : of the choice of the domain
    facts : more for the job's result, JSON values: volumes, flags
    """

    make_objects: Callable[[str], Sequence[Dataset]]
    domain: str
    version: int
    reason: str
    facts: Mapping[str, Any]

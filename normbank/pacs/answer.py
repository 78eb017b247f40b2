"""What is asked of whoever segments a series, and what comes back."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydicom.dataset import Dataset

_NAMESPACE = uuid.UUID("5a6c1f0e-8d52-4f5e-9a37-6e6f726d626b")


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
    on_progress : hears how far it is, 0 to 1, and what is done; raises when it shall end
    """

    folder: Path
    series: str
    domain: str
    kind: Literal["labelmap", "binary"]
    report: bool
    on_progress: Callable[[float, str], None]


@dataclass(frozen=True, slots=True, eq=False)
class SeriesAnswer:
    """What was answered for a series.

    Attributes
    ----------
    make_objects : makes what a PACS can store, the SEG first, then the report; called
        only where something is to be stored, with the UIDs that the objects get
    domain, version : what answered
    reason : of the choice of the domain
    facts : more for the job's result, JSON values: volumes, flags
    """

    make_objects: Callable[[ResultUids], Sequence[Dataset]]
    domain: str
    version: int
    reason: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ResultUids:
    """UIDs of results, the same for every repetition of a job.

    Attributes
    ----------
    seed : what they are made of: who repeats it gets the same
    """

    seed: str

    def of(self, what: str) -> str:
        """A UID by a name of one's own choice, such as `seg`; PS3.5 B.2, from a UUID."""
        return f"2.25.{uuid.uuid5(_NAMESPACE, f'{self.seed}:{what}').int}"

    def give(self, dataset: Dataset, what: str) -> Dataset:
        """Give an object its UIDs, of the instance and of its series, in place."""
        dataset.SOPInstanceUID = self.of(what)
        dataset.SeriesInstanceUID = self.of(f"{what} series")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        return dataset

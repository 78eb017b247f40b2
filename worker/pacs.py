"""The job `pacs`: a series out of a PACS, its segmentation back into it.

A PACS that is away costs a job a few quick attempts, then the job goes back
into the queue for later, and every other job for this PACS with it, untried:
nobody else waits. When `patience_s` is used up, the job fails.

The UIDs of what is stored are made of the job's seed. Before anything is sent
the result is written into the job's row, so an attempt after a `kill -9` finds
there what it has to look for, and stores nothing twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from pydicom.dataset import Dataset

from normbank.entities import Job, PacsPayload
from normbank.errors import ConflictError, PacsUnreachableError, PostponedError
from normbank.pacs.answer import SeriesAnswer, SeriesRequest
from normbank.pacs.client import PacsClient
from normbank.pacs.config import Pacs, read_pacs_file
from normbank.wiring import CoreServices
from pipeline.networks import Networks
from worker.context import WorkerContext
from worker.runner import OnProgress

FIRST_DELAY_S = 5.0
LONGEST_DELAY_S = 300.0
PAUSE_PER_TRY = 4
FETCHED, SEGMENTED = 0.2, 0.9

SegmentSeries = Callable[[CoreServices, Networks, SeriesRequest], SeriesAnswer]


def segment_from_pacs(
    job: Job, context: WorkerContext, on_progress: OnProgress, *, segment: SegmentSeries
) -> Mapping[str, Any]:
    """Fetch a series, segment it, store the results, and see that the PACS lists them.

    Parameters
    ----------
    segment : what segments a series whose files lie in a folder

    Returns
    -------
    `domain`, `version`, `reason`, `stored` (series and SOP instance UIDs of what was
    stored), and the facts of the answer

    Raises
    ------
    PostponedError
        While the PACS is away.
    PacsError
        `pacs_unreachable` after `patience_s`, `pacs_refused`, `series_empty`,
        `series_incomplete`, `store_rejected`.
    ConflictError
        `series_grew`: it has other instances than when the job was made.
    """
    payload = PacsPayload.from_json(job.payload)
    pacs = read_pacs_file(context.core.settings.pacs_file).get(payload.pacs)
    with _later_while_away(job, pacs), PacsClient(pacs, context.core.limits) as client:
        if payload.draft is not None and client.lists(payload.study, _places(payload.draft)):
            return payload.draft  # stored by an attempt that was killed before it could say so
        answer, objects = _answered(payload, client, context, on_progress, segment, job.id)
        result = _result(answer, objects)
        if objects:
            context.core.leases.remember(job.id, job.attempt, {"draft": result})
            on_progress(SEGMENTED, "storing")
            client.store(payload.study, objects)
        return result


def _answered(
    payload: PacsPayload,
    client: PacsClient,
    context: WorkerContext,
    on_progress: OnProgress,
    segment: SegmentSeries,
    job_id: str,
) -> tuple[SeriesAnswer, Sequence[Dataset]]:
    """The answer, and what is to be stored; the series' files are gone when this returns."""
    with tempfile.TemporaryDirectory(dir=context.spool_dir) as folder:
        _fetch(payload, client, Path(folder), on_progress)

        def on_part(progress: float, step: str) -> None:
            on_progress(FETCHED + (SEGMENTED - FETCHED) * progress, step)

        pacs = client.pacs
        request = SeriesRequest(
            Path(folder), payload.series, payload.domain, pacs.seg, pacs.report, job_id, on_part
        )
        answer = segment(context.core, context.networks, request)
        key = payload.seed or job_id
        return answer, answer.make_objects(key) if payload.store else ()


def _fetch(payload: PacsPayload, client: PacsClient, folder: Path, on_progress: OnProgress) -> None:
    expected = payload.instances or 200

    def on_instance(count: int) -> None:
        on_progress(FETCHED * count / (count + expected), "fetching")

    on_progress(0.0, "fetching")
    count = client.fetch(payload.study, payload.series, folder, on_instance=on_instance)
    if payload.instances is not None and count != payload.instances:
        raise ConflictError(
            f"The series had {payload.instances} instances and has {count} now: it is taken "
            "again as it is.",
            code="series_grew",
        )


def _result(answer: SeriesAnswer, objects: Sequence[Dataset]) -> dict[str, Any]:
    stored = [
        {
            "modality": str(one.Modality),
            "series": str(one.SeriesInstanceUID),
            "instance": str(one.SOPInstanceUID),
        }
        for one in objects
    ]
    return {
        "domain": answer.domain,
        "version": answer.version,
        "reason": answer.reason,
        "stored": stored,
        **answer.facts,
    }


def _places(draft: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where a PACS lists what a result says was stored."""
    return [(one["series"], one["instance"]) for one in draft["stored"]]


@contextmanager
def _later_while_away(job: Job, pacs: Pacs) -> Iterator[None]:
    """Turn the news that a PACS is away into "later", until the patience is used up."""
    delay_s = delay_after(job.postponements)
    later = PostponedError(f"waiting for the PACS '{pacs.name}'", delay_s=delay_s)
    waited_s = sum(delay_after(number) for number in range(job.postponements))
    patient = waited_s + delay_s <= pacs.patience_s
    if patient and _away.is_away(pacs.name):
        raise later
    try:
        yield
    except PacsUnreachableError as error:
        _away.note(pacs.name, error.waited_s)
        if not patient:
            raise
        raise later from error
    _away.forget(pacs.name)


class _Away:
    """Which PACS this process does not try for a while, so that the worker has time for others.

    A pause is the longer the more tries in a row have failed, and several times as
    long as the last of them has waited for an answer.
    """

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def is_away(self, name: str) -> bool:
        return monotonic() < self._until.get(name, 0.0)

    def note(self, name: str, waited_s: float) -> None:
        """A try has failed, after so many seconds of waiting."""
        failures = self._failures.get(name, 0)
        self._failures[name] = failures + 1
        pause_s = max(delay_after(failures), PAUSE_PER_TRY * waited_s)
        self._until[name] = monotonic() + min(pause_s, LONGEST_DELAY_S)

    def forget(self, name: str | None = None) -> None:
        """It has answered; None: all of them are tried again."""
        for kept in (self._until, self._failures):
            if name is None:
                kept.clear()
            else:
                kept.pop(name, None)


_away = _Away()


def delay_after(failures: int) -> float:
    """Seconds until something is tried again that has failed so often."""
    return float(min(FIRST_DELAY_S * 2 ** min(failures, 16), LONGEST_DELAY_S))

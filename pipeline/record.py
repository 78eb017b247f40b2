"""From a scan's file to a recorded answer, for whoever owns a network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from normbank.cancellation import Cancellation
from normbank.entities import DomainState, Flag, Segmentation, SegmentationSummary
from normbank.entities.flags import codes, severe_ones
from normbank.errors import ImplausibleError
from normbank.imaging.memory import needed_bytes
from normbank.imaging.nifti import write_labels
from normbank.imaging.scan import Scan
from normbank.services.integrity import FLAGS
from normbank.source import ScanSource
from normbank.wiring import CoreServices
from pipeline.clock import Clock
from pipeline.identify import Identification
from pipeline.segment import SegmentedScan

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Answerer:
    """Who answers for a scan.

    Attributes
    ----------
    state : the version
    segment : the network with it
    flags : what is doubtful about the choice
    identification : why this version, JSON; None where the domain was named
    """

    state: DomainState
    segment: Callable[[Scan], SegmentedScan]
    flags: tuple[Flag, ...] = ()
    identification: Mapping[str, Any] | None = None

    @classmethod
    def chosen(
        cls,
        state: DomainState,
        segment: Callable[[Scan], SegmentedScan],
        decision: Identification | None,
    ) -> Self:
        """One that was chosen so; None: it was named."""
        if decision is None:
            return cls(state, segment)
        return cls(state, segment, decision.flags, decision.to_json())


@dataclass(frozen=True, slots=True, eq=False)
class RecordedAnswer:
    """An answer whose row is written.

    Attributes
    ----------
    record : the row, with the seconds of every stage in its summary
    labels : `.nii.gz` on the scan's own grid
    ids : (X, Y, Z), the same
    source : what was answered for
    """

    record: Segmentation
    labels: bytes
    ids: npt.NDArray[np.integer[Any]]
    source: ScanSource


def segment_and_record(
    core: CoreServices,
    source: ScanSource,
    choose: Callable[[Scan], Answerer],
    *,
    spacing_mm: float,
    job_id: str | None = None,
    accept_doubtful: bool = False,
    cancellation: Cancellation | None = None,
) -> RecordedAnswer:
    """Read, segment, store and record one scan.

    Parameters
    ----------
    source : the scan
    choose : who answers for it, asked when it is read
    spacing_mm : of the network: says how much memory the scan will take
    job_id : of an asynchronous request; a repetition returns the first answer
    accept_doubtful : answer even where there are severe flags
    cancellation : ends the wait for memory when nobody waits for the answer any more

    Raises
    ------
    InvalidError
        If the file is no scan that can be segmented; TooLargeError,
        `needs_too_much_memory`, if it would take more than there is.
    BusyError
        `memory_full`, while other scans hold the memory for it.
    ImplausibleError
        If there are severe flags; its facts hold all of them.
    """
    clock = Clock()
    needed = needed_bytes(source, spacing_mm)
    with core.memory.reserved(needed, cancellation):
        clock.lap("memory")
        scan = source.read()
        clock.lap("read")
        if not accept_doubtful:
            _hold_back(core, scan.flags)  # what the header cannot say, no network finds out
        answerer = choose(scan)
        clock.lap("choose")
        segmented_scan = answerer.segment(scan)
        flags = (*answerer.flags, *segmented_scan.flags)
        segmented_scan = replace(segmented_scan, flags=flags)
        clock.lap("segment")
        if not accept_doubtful:
            _hold_back(core, segmented_scan.flags)
        labels = write_labels(segmented_scan.ids, scan)
    sha256 = hashlib.sha256(labels).hexdigest()
    put = partial(core.blobs.put_bytes, labels)
    record = partial(_record, core, answerer, segmented_scan, sha256, clock, job_id)
    recorded = core.files.keep([sha256], put, record)
    _count(core, segmented_scan.flags)
    return RecordedAnswer(recorded, labels, segmented_scan.ids, source)


def _record(
    core: CoreServices,
    answerer: Answerer,
    segmented_scan: SegmentedScan,
    labels_sha256: str,
    clock: Clock,
    job_id: str | None,
) -> Segmentation:
    """Write the answer's row, once its labels are stored."""
    clock.lap("write")
    total_s = sum(clock.laps.values())
    own = {stage: took for stage, took in clock.laps.items() if stage != "segment"}
    timings_s = {**own, **segmented_scan.timings_s, "total": total_s}
    return core.segmentations.record(
        answerer.state,
        labels_sha256=labels_sha256,
        summary=SegmentationSummary(
            segmented_scan.volumes_mm3,
            segmented_scan.quality,
            {stage: round(took, 4) for stage, took in timings_s.items()},
            segmented_scan.flags,
            answerer.identification,
        ),
        latency_s=total_s,
        retention_s=core.settings.retention_days * DAY_S,
        job_id=job_id,
    )


def _count(core: CoreServices, flags: Sequence[Flag]) -> None:
    for code in codes(flags):
        core.integrity.count_up(FLAGS + code)


def _hold_back(core: CoreServices, flags: Sequence[Flag]) -> None:
    """Raise ImplausibleError where one of the flags is severe."""
    severe = severe_ones(flags)
    if severe:
        _count(core, flags)
        raise ImplausibleError(
            " ".join(flag.detail for flag in severe),
            facts={"flags": [flag.to_json() for flag in flags]},
        )

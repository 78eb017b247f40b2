"""From a scan's file to a recorded answer, for whoever owns a network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from normbank.cancellation import Cancellation
from normbank.entities import DomainState, Flag, Segmentation, SegmentationSummary
from normbank.entities.flags import codes, severe_ones
from normbank.errors import ImplausibleError
from normbank.imaging.memory import needed_bytes
from normbank.imaging.nifti import peek_header, read_scan, write_labels
from normbank.imaging.scan import Scan
from normbank.services.integrity import FLAGS
from normbank.wiring import CoreServices
from pipeline.clock import Clock
from pipeline.segment import SegmentedScan

DAY_S = 86_400.0


def segment_and_record(
    core: CoreServices,
    path: Path,
    state: DomainState,
    segment: Callable[[Scan], SegmentedScan],
    *,
    spacing_mm: float,
    job_id: str | None = None,
    accept_doubtful: bool = False,
    cancellation: Cancellation | None = None,
) -> tuple[Segmentation, bytes]:
    """Read, segment, store and record one scan.

    Parameters
    ----------
    path : the file, whatever it is called
    state : the version that answers
    segment : the network with that version
    spacing_mm : of that network: says how much memory the scan will take
    job_id : of an asynchronous request; a repetition returns the first answer
    accept_doubtful : answer even where there are severe flags
    cancellation : ends the wait for memory when nobody waits for the answer any more

    Returns
    -------
    the record, with the seconds of every stage in its summary, and the
    labels as `.nii.gz` on the scan's own grid

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
    needed = needed_bytes(peek_header(path, core.limits), spacing_mm)
    with core.memory.reserved(needed, cancellation):
        clock.lap("memory")
        scan = read_scan(path, core.limits)
        clock.lap("read")
        if not accept_doubtful:
            _hold_back(core, scan.flags)  # what the header cannot say, no network finds out
        segmented_scan = segment(scan)
        clock.lap("segment")
        if not accept_doubtful:
            _hold_back(core, segmented_scan.flags)
        labels = write_labels(segmented_scan.ids, scan)
    sha256 = hashlib.sha256(labels).hexdigest()
    put = partial(core.blobs.put_bytes, labels)
    record = partial(_record, core, state, segmented_scan, sha256, clock, job_id)
    recorded = core.files.keep([sha256], put, record)
    _count(core, segmented_scan.flags)
    return recorded, labels


def _record(
    core: CoreServices,
    state: DomainState,
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
        state,
        labels_sha256=labels_sha256,
        summary=SegmentationSummary(
            segmented_scan.volumes_mm3,
            segmented_scan.quality,
            {stage: round(took, 4) for stage, took in timings_s.items()},
            segmented_scan.flags,
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

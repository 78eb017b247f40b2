"""From a scan's file to a recorded answer, for whoever owns a network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

from normbank.entities import DomainState, Flag, Segmentation, SegmentationSummary
from normbank.entities.flags import codes, severe_ones
from normbank.errors import ImplausibleError
from normbank.imaging.memory import needed_bytes
from normbank.imaging.nifti import peek_header, read_scan, write_labels
from normbank.imaging.scan import Scan
from normbank.services.integrity import FLAGS
from normbank.wiring import CoreServices
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
    needed = needed_bytes(peek_header(path, core.limits), spacing_mm)
    with core.memory.reserved(needed):
        return _segment_and_record(core, path, state, segment, job_id, accept_doubtful)


def _segment_and_record(
    core: CoreServices,
    path: Path,
    state: DomainState,
    segment: Callable[[Scan], SegmentedScan],
    job_id: str | None,
    accept_doubtful: bool,
) -> tuple[Segmentation, bytes]:
    started = perf_counter()
    scan = read_scan(path, core.limits)
    read_s = perf_counter() - started
    if severe_ones(scan.flags) and not accept_doubtful:
        _judge(core, scan.flags)  # what the header cannot say, no network finds out
    segmented_scan = segment(scan)
    _judge(core, segmented_scan.flags, accept_doubtful=accept_doubtful)
    writing = perf_counter()
    labels = write_labels(segmented_scan.ids, scan)
    sha256 = hashlib.sha256(labels).hexdigest()

    def record() -> Segmentation:
        ended = perf_counter()
        timings_s = {
            "read": read_s,
            **segmented_scan.timings_s,
            "write": ended - writing,
            "total": ended - started,
        }
        return core.segmentations.record(
            state,
            labels_sha256=sha256,
            summary=SegmentationSummary(
                segmented_scan.volumes_mm3,
                segmented_scan.quality,
                {stage: round(took, 4) for stage, took in timings_s.items()},
                segmented_scan.flags,
            ),
            latency_s=ended - started,
            retention_s=core.settings.retention_days * DAY_S,
            job_id=job_id,
        )

    put = partial(core.blobs.put_bytes, labels)
    return core.files.keep([sha256], put, record), labels


def _judge(core: CoreServices, flags: Sequence[Flag], *, accept_doubtful: bool = False) -> None:
    """Count an answer's flags, and hold it back where one is severe."""
    for code in codes(flags):
        core.integrity.count_up(FLAGS + code)
    severe = severe_ones(flags)
    if severe and not accept_doubtful:
        raise ImplausibleError(
            " ".join(flag.detail for flag in severe),
            facts={"flags": [flag.to_json() for flag in flags]},
        )

"""The job `segment`: a stored scan, answered when nobody waits."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from normbank.entities import Job, SegmentPayload
from normbank.imaging.scan import Scan
from pipeline.record import segment_and_record
from pipeline.segment import SegmentedScan, computed_by, segment_scan
from worker.context import WorkerContext
from worker.runner import OnProgress

TYPICAL_SLICES = 160


def segment_stored(job: Job, context: WorkerContext, on_progress: OnProgress) -> Mapping[str, Any]:
    """Segment the scan a job names with the version that it was promised.

    Returns
    -------
    `segmentation` (id), `labels` (path), `domain`, `version`
    """
    payload = SegmentPayload.from_json(job.payload)
    state = context.core.versions.get(payload.domain, payload.version)
    digest = hashlib.sha256() if payload.certify else None
    network = context.networks.predictor_of(state)
    predictor = context.networks.predict_with(context.load(state), digest, _counting(on_progress))

    def segmented(scan: Scan) -> SegmentedScan:
        segmented_scan = segment_scan(scan, predictor, network.spec)
        return computed_by(
            segmented_scan, network.backend, None if digest is None else digest.hexdigest()
        )

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan"
        context.core.blobs.fetch(payload.scan_sha256, path)
        record, _ = segment_and_record(
            context.core,
            path,
            state,
            segmented,
            job_id=job.id,
            accept_doubtful=payload.accept_doubtful,
        )
    return {
        "segmentation": record.id,
        "labels": f"/segmentations/{record.id}/labels",
        "domain": state.domain_id,
        "version": state.number,
    }


def _counting(on_progress: OnProgress) -> Callable[[int], None]:
    """Hears of slices, says how far the job is, and ends it when it shall not go on."""
    done = 0

    def on_slices(count: int) -> None:
        nonlocal done
        on_progress(done / (done + TYPICAL_SLICES), "segmenting")
        done += count

    return on_slices

"""The job `segment`: a stored scan, answered when nobody waits."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from normbank.entities import Flag, Job, SegmentPayload
from normbank.imaging.scan import Scan
from normbank.source import open_source
from pipeline.record import Answerer, segment_and_record
from pipeline.segment import SegmentedScan, computed_by, segment_scan
from pipeline.sound import counting, sound_version
from worker.context import WorkerContext
from worker.runner import OnProgress


def segment_stored(job: Job, context: WorkerContext, on_progress: OnProgress) -> Mapping[str, Any]:
    """Segment the scan a job names with the version that it was promised.

    Where that one fails its checks it is quarantined, and the version that is
    served instead answers.

    Returns
    -------
    `segmentation` (id), `labels` (path), `domain`, `version`

    Raises
    ------
    ConflictError
        `domain_not_ready`, when no sound version is left; `other_backbone`.
    """
    payload = SegmentPayload.from_json(job.payload)
    promised = context.core.versions.get(payload.domain, payload.version)
    state, tensors = sound_version(context.core, context.networks, payload.domain, promised)
    digest = hashlib.sha256() if payload.certify else None
    network = context.networks.predictor_of(state)
    predictor = context.networks.predict_with(tensors, digest, counting(on_progress))

    def segmented(scan: Scan) -> SegmentedScan:
        segmented_scan = segment_scan(scan, predictor, network.spec)
        return computed_by(
            segmented_scan, network.backend, None if digest is None else digest.hexdigest()
        )

    with tempfile.TemporaryDirectory(dir=context.spool_dir) as folder:
        path = Path(folder) / "scan"
        context.core.blobs.fetch(payload.scan_sha256, path)
        record = segment_and_record(
            context.core,
            open_source(path, context.core.limits),
            lambda _: Answerer(state, segmented, _doubts(payload), payload.identification),
            spacing_mm=network.spec.spacing_mm,
            job_id=job.id,
            accept_doubtful=payload.accept_doubtful,
        ).record
    return {
        "segmentation": record.id,
        "labels": f"/segmentations/{record.id}/labels",
        "domain": state.domain_id,
        "version": state.number,
    }


def _doubts(payload: SegmentPayload) -> tuple[Flag, ...]:
    """What was doubtful about the choice of the domain."""
    decision = payload.identification or {}
    return tuple(Flag.from_json(flag) for flag in decision.get("flags", ()))

"""The job `segment`: a stored scan, answered when nobody waits."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from normbank.entities import Job
from normbank.services.answering import Answering
from normbank.services.segmentation import segment_scan
from worker.runner import Report
from worker.workplace import Workplace


def segment_stored(job: Job, place: Workplace, report: Report) -> Mapping[str, Any]:
    """Segment the scan a job names with the version that it was promised.

    Returns
    -------
    `segmentation` (id), `labels` (path), `domain`, `version`
    """
    payload = job.payload
    state = place.registry.version(payload["domain"], payload["version"])
    predictor = place.predict_with(place.load(state))
    network = partial(segment_scan, predictor=predictor, space=place.backbone.spec)
    answering = Answering(place.registry, place.blobs, place.limits, place.settings.retention_days)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / payload["scan_name"]
        place.blobs.fetch(payload["scan_sha256"], path)
        report(0.1, "segmenting")
        record, _ = answering.answer(path, path.name, state, network, job_id=job.id)
    return {
        "segmentation": record.id,
        "labels": f"/segmentations/{record.id}/labels",
        "domain": state.domain_id,
        "version": state.number,
    }

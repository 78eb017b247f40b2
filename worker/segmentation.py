"""The job `segment`: a stored scan, answered when nobody waits."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from normbank.entities import Job
from normbank.imaging.nifti import read_scan, write_labels
from normbank.services.segmentation import segment_scan
from worker.runner import Report
from worker.workplace import Workplace

DAY_S = 86_400.0


def segment_stored(job: Job, place: Workplace, report: Report) -> Mapping[str, Any]:
    """Segment the scan a job names with the version that it was promised.

    Returns
    -------
    `segmentation` (id), `domain`, `version` and the `labels` path
    """
    started = perf_counter()
    payload = job.payload
    state = place.registry.version(payload["domain"], payload["version"])
    predictor = place.predict_with(place.load(state))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / payload["scan_name"]
        place.blobs.fetch(payload["scan_sha256"], path)
        scan = read_scan(path, payload["scan_name"], place.limits)
    report(0.1, "segmenting")
    found = segment_scan(scan, predictor, place.backbone.spec)
    report(0.9, "writing labels")
    labels = place.blobs.put_bytes(write_labels(found.ids, scan))
    latency_s = perf_counter() - started
    record = place.registry.record_segmentation(
        state,
        labels_sha256=labels,
        summary={
            "volumes_mm3": dict(found.volumes_mm3),
            "quality": dict(found.quality),
            "timings_s": {**found.timings_s, "total": round(latency_s, 4)},
        },
        latency_s=latency_s,
        retention_s=place.settings.retention_days * DAY_S,
        job_id=job.id,
    )
    return {
        "segmentation": record.id,
        "labels": f"/segmentations/{record.id}/labels",
        "domain": state.domain_id,
        "version": state.number,
    }

"""The job `segment`: a stored scan, answered when nobody waits."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from normbank.entities import Job
from normbank.imaging.brain import SlicePredictor
from normbank.imaging.scan import Scan
from normbank.services.answering import Answering
from normbank.services.segmentation import SegmentedScan, certified, segment_scan
from worker.runner import Report
from worker.workplace import Workplace

TOLD_EVERY = 16  # slices between two reports
TYPICAL_SLICES = 160


def segment_stored(job: Job, place: Workplace, report: Report) -> Mapping[str, Any]:
    """Segment the scan a job names with the version that it was promised.

    Returns
    -------
    `segmentation` (id), `labels` (path), `domain`, `version`
    """
    payload = job.payload
    state = place.registry.version(payload["domain"], payload["version"])
    digest = hashlib.sha256() if payload.get("certify") else None
    spec = place.spec_of(state)
    predictor = place.predict_with(place.load(state), digest)

    def network(scan: Scan) -> SegmentedScan:
        found = segment_scan(scan, _told(predictor, report), spec)
        if digest is None:
            return found
        return certified(found, digest.hexdigest(), place.shelf.predictor(state.backbone).backend)

    answering = Answering(place.registry, place.blobs, place.limits, place.settings.retention_days)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / payload["scan_name"]
        place.blobs.fetch(payload["scan_sha256"], path)
        record, _ = answering.answer(path, path.name, state, network, job_id=job.id)
    return {
        "segmentation": record.id,
        "labels": f"/segmentations/{record.id}/labels",
        "domain": state.domain_id,
        "version": state.number,
    }


def _told(predictor: SlicePredictor, report: Report) -> SlicePredictor:
    """The same predictor, which says how far it is and ends when it shall not go on."""
    done = 0

    def predict(slices: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        nonlocal done
        answers = []
        for start in range(0, len(slices), TOLD_EVERY):
            report(done / (done + TYPICAL_SLICES), "segmenting")
            answers.append(predictor(slices[start : start + TOLD_EVERY]))
            done += len(answers[-1])
        return np.concatenate(answers)

    return predict

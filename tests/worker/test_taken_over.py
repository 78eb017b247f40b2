"""Rows that the release before has left behind, as it wrote them."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import JobKind, JobState
from normbank.storage.jobs import JobStore
from tests.support.phantoms import phantom_case
from tests.worker.test_adaptation import SHORT, adapted, new_domain
from worker.context import WorkerContext
from worker.runner import run
from worker.segmentation import segment_stored

Sessions = sessionmaker[Session]


def test_a_queued_scan_is_answered(context: WorkerContext, sessions: Sessions) -> None:
    scan = context.core.blobs.put_bytes(phantom_case(3).scan)
    payload = {"scan_sha256": scan, "scan_name": "scan.nii.gz", "domain": "plain", "version": 1}
    with sessions.begin() as session:
        job = JobStore(session).add(JobKind.SEGMENT, "plain", payload, [scan])
    run(job.id, segment_stored, context)
    ended = context.core.jobs.get(job.id)
    assert ended.state is JobState.SUCCEEDED, ended.error_detail
    assert ended.result is not None
    record = context.core.segmentations.get(ended.result["segmentation"])
    assert (record.domain_id, record.version) == ("plain", 1)
    assert record.summary.volumes_mm3
    assert "logits_sha256" not in record.summary.quality


def test_an_adapted_domain_and_its_candidate_are_adapted_again(
    context: WorkerContext, sessions: Sessions
) -> None:
    """Older records lack what was added since, and hold what is no longer asked for."""
    new_domain(context)
    adapted(context, SHORT)
    adapted(context, replace(SHORT, publish=False))
    with sessions.begin() as session:
        session.execute(
            text(
                "UPDATE domain_version SET metrics = (metrics - 'precision' - 'replaced') "
                "|| '{\"gone\": 1}' WHERE domain_id = 'ward-7'"
            )
        )
    served, candidate = context.core.versions.of("ward-7")
    assert served.adaptation is not None
    assert served.adaptation.precision == ""
    assert candidate.adaptation is not None
    assert candidate.metrics["gone"] == 1  # shown by the API as the job recorded it
    third = adapted(context, replace(SHORT, steps=1, learning_rate=1e-9, parent="plain@1"))
    assert third.state is JobState.SUCCEEDED, third.error_detail
    record = context.core.versions.get("ward-7", 3).adaptation
    assert record is not None
    assert record.replaced.dice == served.adaptation.after.mean_dice

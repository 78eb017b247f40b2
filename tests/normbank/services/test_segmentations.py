"""Segmentations, traffic and retention."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import SegmentationSummary
from normbank.errors import NotFoundError
from normbank.services.jobs import Jobs
from normbank.storage.blobs import BlobStore
from normbank.wiring import CoreServices
from tests.support.domains import new_case, ready_domain
from tests.support.services import scan_job

Sessions = sessionmaker[Session]


def answer(
    core: CoreServices,
    blobs: BlobStore,
    labels: str = "labels",
    *,
    latency_s: float = 1.0,
    retention_s: float = 60.0,
    job_id: str | None = None,
    volume_mm3: float = 1.0,
) -> str:
    return core.segmentations.record(
        core.versions.active("a"),
        labels_sha256=blobs.put_bytes(labels.encode()),
        summary=SegmentationSummary({"left-hippocampus": volume_mm3}),
        latency_s=latency_s,
        retention_s=retention_s,
        job_id=job_id,
    ).id


def test_an_answer_names_what_gave_it(core: CoreServices, blobs: BlobStore) -> None:
    state = ready_domain(core, blobs, "a")
    found = core.segmentations.get(answer(core, blobs, retention_s=3600))
    assert (found.domain_id, found.version, found.backbone) == ("a", 1, state.backbone)
    assert found.state_sha256 == state.sha256
    assert found.labels_sha256 is not None
    assert blobs.get_bytes(found.labels_sha256) == b"labels"
    assert (found.expires_at - found.created_at).total_seconds() == 3600
    with pytest.raises(NotFoundError) as caught:
        core.segmentations.get("nothing")
    assert caught.value.code == "unknown_segmentation"


def test_a_job_gives_one_answer(core: CoreServices, blobs: BlobStore, jobs: Jobs) -> None:
    ready_domain(core, blobs, "a")
    job = jobs.submit_segment(scan_job())
    first = answer(core, blobs, job_id=job.id)
    assert answer(core, blobs, job_id=job.id) == first
    assert answer(core, blobs) != answer(core, blobs)


def test_traffic_counts_within_its_window(
    core: CoreServices, blobs: BlobStore, sessions: Sessions
) -> None:
    ready_domain(core, blobs, "a")
    idle = core.segmentations.traffic("a", 60)
    assert (idle.count, idle.errors, idle.latency_p50_s, idle.volumes_mm3) == (0, 0, None, ())
    for n in range(1, 22):
        answer(core, blobs, latency_s=float(n), volume_mm3=float(n))
    for code in ("no_close_domain", "too_large"):
        core.segmentations.record_error("a", code)
    core.segmentations.record_error(None, "unreadable_scan")
    core.segmentations.record_error("never-made", "unknown_domain")
    traffic = core.segmentations.traffic("a", 60, newest=3)
    assert (traffic.count, traffic.errors) == (21, 2)
    assert (traffic.latency_p50_s, traffic.latency_p95_s) == (11.0, 20.0)
    volumes = [item["volumes_mm3"]["left-hippocampus"] for item in traffic.volumes_mm3]
    assert volumes == [19.0, 20.0, 21.0]
    assert {"at", "version"} < set(traffic.volumes_mm3[0])
    with sessions.begin() as session:
        for table in ("segmentation", "request_error"):
            session.execute(text(f"UPDATE {table} SET created_at = now() - interval '2 minutes'"))
    assert core.segmentations.traffic("a", 60).count == 0
    assert core.segmentations.traffic("a", 60).errors == 0


def test_labels_go_when_their_retention_has_passed(core: CoreServices, blobs: BlobStore) -> None:
    ready_domain(core, blobs, "a")
    over = answer(core, blobs, "over", retention_s=-1)
    kept = answer(core, blobs, "kept")
    sha256 = core.segmentations.get(over).labels_sha256
    assert sha256 is not None
    assert core.segmentations.expire() == 1
    assert not blobs.exists(sha256)
    assert core.segmentations.get(over).labels_sha256 is None
    assert core.segmentations.get(over).summary.volumes_mm3
    assert core.segmentations.get(kept).labels_sha256 is not None
    assert core.segmentations.expire() == 0


def test_a_file_that_somebody_points_to_stays(
    core: CoreServices, blobs: BlobStore, jobs: Jobs
) -> None:
    ready_domain(core, blobs, "a")
    answer(core, blobs, "shared", retention_s=-1)
    answer(core, blobs, "shared")
    case = new_case(blobs, "a 0")
    answer(core, blobs, "labels a 0", retention_s=-1)
    scan = blobs.put_bytes(b"waiting")
    jobs.submit_segment(scan_job(scan))
    answer(core, blobs, "waiting", retention_s=-1)
    assert core.segmentations.expire() == 0
    assert blobs.exists(case.labels_sha256)
    assert blobs.exists(scan)
    assert core.files.discard([case.scan_sha256, scan, "0" * 64]) == 0


def test_the_scan_of_a_job_goes_when_the_job_has_ended(
    core: CoreServices, blobs: BlobStore, jobs: Jobs
) -> None:
    scan = blobs.put_bytes(b"a scan")
    job = jobs.submit_segment(scan_job(scan))
    assert core.segmentations.expire() == 0
    jobs.cancel(job.id)
    assert core.segmentations.expire() == 1
    assert not blobs.exists(scan)


def test_an_upload_that_came_to_nothing_can_be_discarded(
    core: CoreServices, blobs: BlobStore
) -> None:
    case = new_case(blobs, "refused")
    assert core.files.discard([case.scan_sha256, case.labels_sha256]) == 2
    assert not blobs.exists(case.scan_sha256)


def test_no_row_points_to_a_file_deleted_at_the_same_moment(
    core: CoreServices, blobs: BlobStore
) -> None:
    ready_domain(core, blobs, "a")
    sha256 = blobs.put_bytes(b"raced")

    def act(n: int) -> str | None:
        if n % 4 == 3:
            core.files.discard([sha256])
            return None
        try:
            return answer(core, blobs, "raced")
        except NotFoundError:  # deleted since it was put: send it again
            return None

    with ThreadPoolExecutor(8) as pool:
        made = [segmentation for segmentation in pool.map(act, range(40)) if segmentation]
    assert made
    assert blobs.exists(sha256)

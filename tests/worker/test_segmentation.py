"""Asynchronous scans: what is left of them on disk, and what answers when a state rots."""

from __future__ import annotations

import gzip
import logging
import stat
from pathlib import Path

import nibabel
import numpy as np
import pytest
from sqlalchemy import text

from models.state import State
from normbank.entities import Job, JobState, NewState, SegmentPayload
from normbank.services.integrity import FLAGS, REJECTED_STATES
from simulate.odd_scans import ODD_SCANS
from tests.support.phantoms import phantom_case
from worker.context import WorkerContext
from worker.runner import run
from worker.segmentation import segment_stored


def submitted(
    context: WorkerContext,
    version: int = 1,
    *,
    file: bytes | None = None,
    accept_doubtful: bool = False,
) -> Job:
    scan = context.core.blobs.put_bytes(file or phantom_case(3).scan)
    payload = SegmentPayload(scan, "scan.nii.gz", "plain", version, accept_doubtful=accept_doubtful)
    return context.core.jobs.submit_segment(payload)


def second_version(context: WorkerContext) -> str:
    """A version 2 of `plain` that is served; its hash."""
    first = context.load(context.core.versions.get("plain", 1))
    state = State(first.rows + 0.01, first.backbone)
    new = NewState(state.sha256, state.backbone, "plain@1", {}, {}, None, state.to_bytes())
    context.core.versions.publish("plain", state=new, promote=True)
    return state.sha256


def rot(context: WorkerContext, sha256: str) -> None:
    statement = "UPDATE state SET tensors = set_byte(tensors, length(tensors) - 9, 77)"
    with context.core.database.begin() as connection:
        connection.execute(text(f"{statement} WHERE sha256 = :sha256"), {"sha256": sha256})


def test_the_copy_of_a_scan_lies_in_the_private_spool_while_it_is_read(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copies: list[Path] = []
    fetch = context.core.blobs.fetch

    def watched(sha256: str, to: Path) -> None:
        copies.append(to)
        fetch(sha256, to)

    monkeypatch.setattr(context.core.blobs, "fetch", watched)
    job = submitted(context)
    run(job.id, segment_stored, context)
    assert context.core.jobs.get(job.id).state is JobState.SUCCEEDED
    (copy,) = copies
    assert context.core.settings.spool_at in copy.parents
    assert stat.S_IMODE(context.core.settings.spool_at.stat().st_mode) == 0o700
    assert stat.S_IMODE(context.spool_dir.stat().st_mode) == 0o700
    assert [path.name for path in context.spool_dir.iterdir()] == ["lock"]


def test_a_rotten_version_is_quarantined_and_the_one_before_answers(
    context: WorkerContext, caplog: pytest.LogCaptureFixture
) -> None:
    rot(context, second_version(context))
    job = submitted(context, version=2)
    with caplog.at_level(logging.ERROR, "worker.context"):
        run(job.id, segment_stored, context)
    ended = context.core.jobs.get(job.id)
    assert ended.state is JobState.SUCCEEDED, ended.error_detail
    assert ended.result is not None
    assert ended.result["version"] == 1
    assert context.core.versions.get("plain", 2).quarantined
    assert context.core.versions.active("plain").number == 1
    assert context.core.integrity.tallies() == {REJECTED_STATES: 1}
    alarms = [record.message[:5] for record in caplog.records if record.name == "pipeline.sound"]
    assert alarms == ["ALARM"]


def test_a_domain_without_a_sound_version_fails_its_scans(context: WorkerContext) -> None:
    rot(context, context.core.versions.get("plain", 1).sha256)
    job = submitted(context)
    run(job.id, segment_stored, context)
    ended = context.core.jobs.get(job.id)
    assert (ended.state, ended.error_code) == (JobState.FAILED, "domain_not_ready")


def test_a_scan_that_nobody_can_place_fails_its_job_and_is_counted(context: WorkerContext) -> None:
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(phantom_case(3).scan))
    data, affine = np.asarray(image.dataobj, np.float32), np.asarray(image.affine)
    file = ODD_SCANS["no form, stored RAS"](data, affine).file
    job = submitted(context, file=file)
    run(job.id, segment_stored, context)
    ended = context.core.jobs.get(job.id)
    assert (ended.state, ended.error_code) == (JobState.FAILED, "implausible")
    taken = submitted(context, file=file, accept_doubtful=True)
    run(taken.id, segment_stored, context)
    assert context.core.jobs.get(taken.id).state is JobState.SUCCEEDED
    assert context.core.integrity.tallies() == {f"{FLAGS}orientation_unknown": 2}

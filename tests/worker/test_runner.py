from __future__ import annotations

import time

import pytest

from normbank.entities import Job, JobState
from normbank.errors import InvalidError
from tests.support.services import scan_job
from worker.context import WorkerContext
from worker.runner import OnProgress, run


def submitted(context: WorkerContext) -> Job:
    return context.core.jobs.submit_segment(scan_job())


def test_a_job_ends_with_its_result_and_its_progress_was_told(context: WorkerContext) -> None:
    seen = []

    def work(job: Job, _context: WorkerContext, on_progress: OnProgress) -> dict[str, int]:
        on_progress(0.5, "halfway")
        seen.append(context.core.jobs.get(job.id))
        return {"answer": 42}

    job = submitted(context)
    run(job.id, work, context)
    ended = context.core.jobs.get(job.id)
    assert (ended.state, ended.result, ended.attempt) == (JobState.SUCCEEDED, {"answer": 42}, 1)
    assert (seen[0].state, seen[0].progress, seen[0].step) == (JobState.RUNNING, 0.5, "halfway")
    assert seen[0].eta_s is not None


def test_a_finished_job_is_not_done_again(context: WorkerContext) -> None:
    done = []

    def work(job: Job, _context: WorkerContext, _progress: OnProgress) -> dict[str, int]:
        done.append(job.attempt)
        return {}

    job = submitted(context)
    for _ in range(3):
        run(job.id, work, context)
    assert done == [1]


@pytest.mark.parametrize(
    ("error", "code"),
    [(InvalidError("no use", code="no_use"), "no_use"), (RuntimeError("secret"), "internal")],
)
def test_a_job_that_goes_wrong_says_why_and_quotes_no_stranger(
    context: WorkerContext, error: Exception, code: str
) -> None:
    def work(_job: Job, _context: WorkerContext, _progress: OnProgress) -> dict[str, int]:
        raise error

    job = submitted(context)
    run(job.id, work, context)
    ended = context.core.jobs.get(job.id)
    assert (ended.state, ended.error_code) == (JobState.FAILED, code)
    assert "secret" not in str(ended.error_detail)


def test_a_cancelled_job_stops_at_its_next_report(context: WorkerContext) -> None:
    def work(job: Job, _context: WorkerContext, on_progress: OnProgress) -> dict[str, int]:
        context.core.jobs.cancel(job.id)
        while time.monotonic() < started + 10:
            on_progress(0.1, "busy")
            time.sleep(0.02)
        return {}

    started = time.monotonic()

    job = submitted(context)
    run(job.id, work, context)
    assert context.core.jobs.get(job.id).state is JobState.CANCELLED


def test_a_silent_job_is_kept_alive_by_its_lease(context: WorkerContext) -> None:
    def work(_job: Job, _context: WorkerContext, _progress: OnProgress) -> dict[str, int]:
        time.sleep(2.5)  # two and a half leases without a word
        assert context.core.leases.sweep() == []
        return {}

    job = submitted(context)
    run(job.id, work, context)
    assert context.core.jobs.get(job.id).state is JobState.SUCCEEDED


def test_an_attempt_that_lost_its_lease_does_not_touch_the_row(context: WorkerContext) -> None:
    def work(job: Job, _context: WorkerContext, _progress: OnProgress) -> dict[str, str]:
        context.core.leases.fail(job.id, job.attempt, "elsewhere", "ended by somebody else")
        return {"never": "written"}

    job = submitted(context)
    run(job.id, work, context)
    ended = context.core.jobs.get(job.id)
    assert (ended.state, ended.error_code, ended.result) == (JobState.FAILED, "elsewhere", None)

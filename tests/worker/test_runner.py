from __future__ import annotations

import time

import pytest

from normbank.entities import Job, JobState
from normbank.errors import InvalidError
from worker.runner import Report, run
from worker.workplace import Workplace


def submitted(place: Workplace) -> Job:
    return place.jobs.submit_segment({"domain": "plain", "version": 1})


def test_a_job_ends_with_its_result_and_its_progress_was_told(place: Workplace) -> None:
    seen = []

    def work(job: Job, _place: Workplace, report: Report) -> dict[str, int]:
        report(0.5, "halfway")
        seen.append(place.jobs.job(job.id))
        return {"answer": 42}

    job = submitted(place)
    run(job.id, work, place)
    ended = place.jobs.job(job.id)
    assert (ended.state, ended.result, ended.attempt) == (JobState.SUCCEEDED, {"answer": 42}, 1)
    assert (seen[0].state, seen[0].progress, seen[0].step) == (JobState.RUNNING, 0.5, "halfway")
    assert seen[0].eta_s is not None


def test_a_finished_job_is_not_done_again(place: Workplace) -> None:
    done = []

    def work(job: Job, _place: Workplace, _report: Report) -> dict[str, int]:
        done.append(job.attempt)
        return {}

    job = submitted(place)
    for _ in range(3):
        run(job.id, work, place)
    assert done == [1]


@pytest.mark.parametrize(
    ("error", "code"),
    [(InvalidError("no use", code="no_use"), "no_use"), (RuntimeError("secret"), "internal")],
)
def test_a_job_that_goes_wrong_says_why_and_quotes_no_stranger(
    place: Workplace, error: Exception, code: str
) -> None:
    def work(_job: Job, _place: Workplace, _report: Report) -> dict[str, int]:
        raise error

    job = submitted(place)
    run(job.id, work, place)
    ended = place.jobs.job(job.id)
    assert (ended.state, ended.error_code) == (JobState.FAILED, code)
    assert "secret" not in str(ended.error_detail)


def test_a_cancelled_job_stops_at_its_next_report(place: Workplace) -> None:
    def work(job: Job, _place: Workplace, report: Report) -> dict[str, int]:
        place.jobs.cancel(job.id)
        while time.monotonic() < started + 10:
            report(0.1, "busy")
            time.sleep(0.02)
        return {}

    started = time.monotonic()

    job = submitted(place)
    run(job.id, work, place)
    assert place.jobs.job(job.id).state is JobState.CANCELLED


def test_a_silent_job_is_kept_alive_by_its_lease(place: Workplace) -> None:
    def work(_job: Job, _place: Workplace, _report: Report) -> dict[str, int]:
        time.sleep(2.5)  # two and a half leases without a word
        assert place.jobs.sweep() == []
        return {}

    job = submitted(place)
    run(job.id, work, place)
    assert place.jobs.job(job.id).state is JobState.SUCCEEDED


def test_an_attempt_that_lost_its_lease_does_not_touch_the_row(place: Workplace) -> None:
    def work(job: Job, _place: Workplace, _report: Report) -> dict[str, str]:
        place.jobs.fail(job.id, job.attempt, "elsewhere", "ended by somebody else")
        return {"never": "written"}

    job = submitted(place)
    run(job.id, work, place)
    ended = place.jobs.job(job.id)
    assert (ended.state, ended.error_code, ended.result) == (JobState.FAILED, "elsewhere", None)

"""Leases: a job is one worker's, never lost, never run for ever."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.orm import Session, sessionmaker

from normbank.config import Settings
from normbank.entities import Job, JobState, Recipe
from normbank.errors import (
    ConflictError,
    JobCancelledError,
    LeaseLostError,
    NormbankError,
    NotFoundError,
)
from normbank.services.jobs import Jobs
from normbank.services.leases import Leases
from normbank.storage.blobs import BlobStore
from normbank.wiring import CoreServices
from tests.support.domains import new_domain
from tests.support.services import ListQueue, scan_job

Sessions = sessionmaker[Session]


@pytest.fixture
def silent(sessions: Sessions, queue: ListQueue) -> Leases:
    """Every lease is over as soon as it is given."""
    return Leases(sessions, queue, Settings(lease_s=-1.0))


@pytest.fixture
def running(jobs: Jobs, leases: Leases, domain: str) -> Job:
    return claimed(leases, jobs.submit_adapt(domain, Recipe())[0].id)


def claimed(leases: Leases, job_id: str, worker: str = "w") -> Job:
    job = leases.claim(job_id, worker)
    assert job is not None
    return job


def test_of_many_who_claim_a_job_one_gets_it(jobs: Jobs, leases: Leases, domain: str) -> None:
    job, _ = jobs.submit_adapt(domain, Recipe())
    with ThreadPoolExecutor(8) as pool:
        got = [j for j in pool.map(lambda n: leases.claim(job.id, f"w{n}"), range(8)) if j]
    assert len(got) == 1
    assert (got[0].state, got[0].attempt) == (JobState.RUNNING, 1)
    assert got[0].started_at is not None


def test_claiming_what_is_not_there_gives_nothing(leases: Leases) -> None:
    assert leases.claim("nothing", "w") is None


def test_heartbeats_tell_how_far_the_job_is(jobs: Jobs, leases: Leases, running: Job) -> None:
    leases.heartbeat(running.id, 1, progress=0.5, step="training", eta_s=12.0)
    leases.heartbeat(running.id, 1)
    job = jobs.get(running.id)
    assert (job.progress, job.step, job.eta_s) == (0.5, "training", 12.0)


def test_a_heartbeat_prolongs_the_lease(
    jobs: Jobs, leases: Leases, silent: Leases, sessions: Sessions, domain: str
) -> None:
    job, _ = jobs.submit_adapt(domain, Recipe())
    claimed(silent, job.id)
    leases.heartbeat(job.id, 1)
    assert leases.sweep() == []
    assert leases.claim(job.id, "other") is None
    silent.heartbeat(job.id, 1)
    assert leases.sweep() == [job.id]


def test_only_the_owning_attempt_may_speak_for_a_job(
    jobs: Jobs, silent: Leases, domain: str
) -> None:
    job, _ = jobs.submit_adapt(domain, Recipe())
    claimed(silent, job.id, "first")
    claimed(silent, job.id, "second")
    for speak in (
        lambda: silent.heartbeat(job.id, 1),
        lambda: silent.succeed(job.id, 1, {}),
        lambda: silent.fail(job.id, 1, "x", "y"),
        lambda: silent.mark_cancelled(job.id, 1),
    ):
        with pytest.raises(LeaseLostError):
            speak()
    done = silent.succeed(job.id, 2, {"version": 3})
    assert (done.state, done.result, done.progress) == (JobState.SUCCEEDED, {"version": 3}, 1.0)
    assert done.finished_at is not None
    with pytest.raises(LeaseLostError):
        silent.heartbeat(job.id, 2)
    assert silent.claim(job.id, "third") is None


def test_a_failed_job_says_why(leases: Leases, running: Job) -> None:
    failed = leases.fail(running.id, 1, "bad_state", "The parent's bytes do not check.")
    assert (failed.state, failed.error_code) == (JobState.FAILED, "bad_state")
    assert failed.error_detail == "The parent's bytes do not check."
    assert failed.result is None


def test_a_queued_job_is_cancelled_at_once(jobs: Jobs, leases: Leases, domain: str) -> None:
    job, _ = jobs.submit_adapt(domain, Recipe())
    assert jobs.cancel(job.id).state is JobState.CANCELLED
    assert leases.claim(job.id, "w") is None
    with pytest.raises(ConflictError) as caught:
        jobs.cancel(job.id)
    assert caught.value.code == "job_finished"
    with pytest.raises(NotFoundError):
        jobs.cancel("nothing")


def test_a_running_job_hears_of_its_cancelling_at_its_next_heartbeat(
    jobs: Jobs, leases: Leases, running: Job
) -> None:
    asked = jobs.cancel(running.id)
    assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
    with pytest.raises(JobCancelledError):
        leases.heartbeat(running.id, 1)
    assert leases.mark_cancelled(running.id, 1).state is JobState.CANCELLED


def test_a_job_cancelled_while_its_worker_is_lost_is_not_run_again(
    jobs: Jobs, silent: Leases, domain: str
) -> None:
    job, _ = jobs.submit_adapt(domain, Recipe())
    claimed(silent, job.id)
    jobs.cancel(job.id)
    assert silent.sweep() == []
    assert jobs.get(job.id).state is JobState.CANCELLED


def test_a_job_whose_worker_is_lost_is_announced_again(
    jobs: Jobs, silent: Leases, queue: ListQueue, domain: str
) -> None:
    job, _ = jobs.submit_adapt(domain, Recipe())
    claimed(silent, job.id)
    assert silent.sweep() == [job.id]
    assert jobs.get(job.id).state is JobState.QUEUED
    assert queue.announced == [job.id, job.id]
    assert claimed(silent, job.id).attempt == 2


def test_a_poison_job_ends_after_three_attempts_with_a_reason(
    jobs: Jobs, silent: Leases, domain: str
) -> None:
    job, _ = jobs.submit_adapt(domain, Recipe())
    for _ in range(3):
        claimed(silent, job.id)
        silent.sweep()
    ended = jobs.get(job.id)
    assert (ended.state, ended.attempt, ended.error_code) == (JobState.FAILED, 3, "worker_lost")
    assert silent.sweep() == []


def test_a_redelivered_message_ends_a_poison_job_too(
    jobs: Jobs, silent: Leases, domain: str
) -> None:
    job, _ = jobs.submit_adapt(domain, Recipe())
    for _ in range(3):
        claimed(silent, job.id)
    assert silent.claim(job.id, "w") is None
    assert jobs.get(job.id).error_code == "worker_lost"


def test_what_was_announced_into_the_void_is_announced_again(
    jobs: Jobs, sessions: Sessions, queue: ListQueue, domain: str
) -> None:
    patient = Leases(sessions, queue, Settings())
    impatient = Leases(sessions, queue, Settings(), announce_s=0.0)
    job, _ = jobs.submit_adapt(domain, Recipe())
    queue.announced.clear()
    assert patient.sweep() == []
    assert impatient.sweep() == [job.id] == queue.announced


def test_of_many_sweepers_one_takes_a_lost_job(
    jobs: Jobs, silent: Leases, core: CoreServices, blobs: BlobStore
) -> None:
    made = []
    for n in range(12):
        new_domain(core, blobs, f"d-{n}", cases=2)
        made.append(jobs.submit_adapt(f"d-{n}", Recipe())[0].id)
        claimed(silent, made[-1])
    with ThreadPoolExecutor(8) as pool:
        swept = [job_id for ids in pool.map(lambda _: silent.sweep(), range(8)) for job_id in ids]
    assert sorted(swept) == sorted(made)


def test_sweepers_and_claimers_at_once_never_give_an_attempt_twice(
    jobs: Jobs, sessions: Sessions, queue: ListQueue, domain: str
) -> None:
    leases = Leases(sessions, queue, Settings(lease_s=-1.0, max_attempts=20))
    job, _ = jobs.submit_adapt(domain, Recipe())

    def act(n: int) -> int | None:
        if n % 2:
            leases.sweep()
            return None
        got = leases.claim(job.id, f"w{n}")
        return got.attempt if got else None

    with ThreadPoolExecutor(8) as pool:
        attempts = [attempt for attempt in pool.map(act, range(48)) if attempt]
    assert len(attempts) == len(set(attempts))
    assert max(attempts) == 20
    assert leases.claim(job.id, "last") is None
    assert jobs.get(job.id).error_code == "worker_lost"


def test_finishing_and_taking_back_at_once_leaves_one_outcome(
    jobs: Jobs, silent: Leases, domain: str
) -> None:
    for _ in range(10):
        job, _ = jobs.submit_adapt(domain, Recipe())
        claimed(silent, job.id)

        def finish(job_id: str = job.id) -> bool:
            try:
                silent.succeed(job_id, 1, {})
            except LeaseLostError:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            swept, finished = pool.submit(silent.sweep), pool.submit(finish)
            assert bool(swept.result()) != finished.result()
        state = jobs.get(job.id).state
        assert state is (JobState.SUCCEEDED if finished.result() else JobState.QUEUED)
        if not state.finished:
            jobs.cancel(job.id)


def test_an_unknown_job_is_not_found(jobs: Jobs) -> None:
    with pytest.raises(NormbankError) as caught:
        jobs.get("nothing")
    assert caught.value.code == "unknown_job"


def test_a_postponed_job_is_claimed_when_its_time_has_come_and_not_before(
    jobs: Jobs, sessions: Sessions, queue: ListQueue
) -> None:
    leases = Leases(sessions, queue, Settings())
    job = jobs.submit_segment(scan_job())
    claimed(leases, job.id)
    leases.postpone(job.id, 1, 0.4, "waiting")
    waiting = jobs.get(job.id)
    assert (waiting.state, waiting.step, waiting.postponements) == (JobState.QUEUED, "waiting", 1)
    assert leases.claim(job.id, "early") is None
    assert leases.sweep() == []
    time.sleep(0.5)
    assert leases.sweep() == [job.id]  # at once, however lately it was announced
    assert leases.sweep() == []
    assert claimed(leases, job.id).attempt == 2


def test_postponed_attempts_are_not_lost_ones(
    jobs: Jobs, sessions: Sessions, queue: ListQueue, silent: Leases
) -> None:
    job = jobs.submit_segment(scan_job())
    for _ in range(5):
        attempt = claimed(silent, job.id).attempt
        silent.postpone(job.id, attempt, -1.0, "waiting")
    for _ in range(3):
        claimed(silent, job.id)
        silent.sweep()
    ended = jobs.get(job.id)
    assert (ended.attempt, ended.error_code) == (8, "worker_lost")
    assert "in each of 3 attempts" in str(ended.error_detail)


def test_only_the_owner_postpones_or_adds_to_a_job(jobs: Jobs, leases: Leases) -> None:
    job = jobs.submit_segment(scan_job())
    claimed(leases, job.id)
    leases.remember(job.id, 1, {"draft": {"a": 1}})
    assert jobs.get(job.id).payload["draft"] == {"a": 1}
    assert jobs.get(job.id).payload["domain"] == "plain"
    for act in (
        lambda: leases.postpone(job.id, 2, 1.0, ""),
        lambda: leases.remember(job.id, 2, {}),
    ):
        with pytest.raises(LeaseLostError):
            act()

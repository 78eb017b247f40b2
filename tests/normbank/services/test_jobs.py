"""Work that is asked for: once, committed, then announced."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import Job, JobKind, JobState, Recipe
from normbank.errors import (
    BusyError,
    ConflictError,
    InvalidError,
    NotFoundError,
    TooFewCasesError,
)
from normbank.services.jobs import Jobs
from normbank.storage.blobs import BlobStore
from normbank.wiring import CoreServices
from tests.support.domains import new_domain
from tests.support.services import ListQueue, scan_job

Sessions = sessionmaker[Session]


def test_an_adaptation_is_written_then_announced(jobs: Jobs, queue: ListQueue, domain: str) -> None:
    job, replayed = jobs.submit_adapt(domain, Recipe(seed=7))
    assert not replayed
    assert queue.announced == [job.id]
    assert jobs.get(job.id) == job
    assert (job.kind, job.state, job.attempt) == (JobKind.ADAPT, JobState.QUEUED, 0)
    assert Recipe.from_json(job.payload) == Recipe(seed=7)
    assert (job.progress, job.result, job.started_at) == (0.0, None, None)
    assert jobs.counts() == {(JobKind.ADAPT, JobState.QUEUED): 1}


def test_a_job_is_committed_when_it_is_announced(
    jobs: Jobs, sessions: Sessions, core: CoreServices, domain: str
) -> None:
    seen: list[JobState] = []

    class LookingQueue:
        def enqueue(self, job: Job) -> None:
            seen.append(jobs.get(job.id).state)

    looking = Jobs(sessions, LookingQueue(), core.files, queue_jobs=1)
    looking.submit_adapt(domain, Recipe())
    assert seen == [JobState.QUEUED]


def test_too_few_cases_are_refused_and_nothing_is_announced(
    jobs: Jobs, queue: ListQueue, core: CoreServices, blobs: BlobStore
) -> None:
    new_domain(core, blobs, "one", cases=1)
    with pytest.raises(TooFewCasesError) as caught:
        jobs.submit_adapt("one", Recipe())
    assert caught.value.facts == {"cases": 1, "needed": 2}
    with pytest.raises(NotFoundError):
        jobs.submit_adapt("nowhere", Recipe())
    assert queue.announced == []
    assert jobs.counts() == {}


def test_of_adaptations_asked_for_at_once_one_is_made(jobs: Jobs, domain: str) -> None:
    def submit(_: int) -> str:
        try:
            return jobs.submit_adapt(domain, Recipe())[0].kind
        except ConflictError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        answers = Counter(pool.map(submit, range(8)))
    assert answers == {"adapt": 1, "adaptation_in_flight": 7}


def test_the_next_adaptation_may_come_when_the_last_has_ended(jobs: Jobs, domain: str) -> None:
    first, _ = jobs.submit_adapt(domain, Recipe())
    jobs.cancel(first.id)
    second, _ = jobs.submit_adapt(domain, Recipe())
    assert second.id != first.id
    assert jobs.counts() == {(JobKind.ADAPT, JobState.QUEUED): 1}


def test_the_same_key_and_request_replay_the_first_answer(
    jobs: Jobs, queue: ListQueue, domain: str
) -> None:
    first, _ = jobs.submit_adapt(domain, Recipe(), idempotency=("k", "body 1"), actor="a")
    again, replayed = jobs.submit_adapt(domain, Recipe(), idempotency=("k", "body 1"), actor="a")
    assert (again.id, replayed) == (first.id, True)
    assert queue.announced == [first.id]
    with pytest.raises(InvalidError) as caught:
        jobs.submit_adapt(domain, Recipe(), idempotency=("k", "body 2"), actor="a")
    assert caught.value.code == "idempotency_mismatch"
    with pytest.raises(ConflictError):  # somebody else's key of the same name
        jobs.submit_adapt(domain, Recipe(), idempotency=("k", "body 1"), actor="b")


def test_the_same_key_many_times_at_once_makes_one_job(
    jobs: Jobs, queue: ListQueue, domain: str
) -> None:
    def submit(_: int) -> tuple[str, bool]:
        job, replayed = jobs.submit_adapt(domain, Recipe(), idempotency=("k", "body"))
        return job.id, replayed

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(8)))
    assert len({job_id for job_id, _ in answers}) == 1
    assert [replayed for _, replayed in answers].count(False) == 1
    assert len(queue.announced) == 1


def test_a_refused_request_does_not_use_its_key_up(
    jobs: Jobs, core: CoreServices, blobs: BlobStore
) -> None:
    new_domain(core, blobs, "one", cases=0)
    with pytest.raises(TooFewCasesError):
        jobs.submit_adapt("one", Recipe(), idempotency=("k", "body"))
    with pytest.raises(TooFewCasesError):
        jobs.submit_adapt("one", Recipe(), idempotency=("k", "other"))


def test_a_key_is_forgotten_after_a_day(jobs: Jobs, sessions: Sessions, domain: str) -> None:
    first, _ = jobs.submit_adapt(domain, Recipe(), idempotency=("k", "old"))
    jobs.cancel(first.id)
    with sessions.begin() as session:
        session.execute(text("UPDATE idempotency_key SET created_at = now() - interval '25 hours'"))
    second, replayed = jobs.submit_adapt(domain, Recipe(), idempotency=("k", "new"))
    assert not replayed
    assert second.id != first.id


def test_segmentations_do_not_wait_for_one_another(
    jobs: Jobs, blobs: BlobStore, domain: str
) -> None:
    scan = blobs.put_bytes(b"scan")
    made = [jobs.submit_segment(scan_job(scan), domain_id=domain) for _ in range(3)]
    assert {job.kind for job in made} == {JobKind.SEGMENT}
    assert jobs.counts() == {(JobKind.SEGMENT, JobState.QUEUED): 3}
    assert jobs.submit_adapt(domain, Recipe())[0].state is JobState.QUEUED


def test_a_segmentation_without_its_file_is_refused(
    jobs: Jobs, queue: ListQueue, blobs: BlobStore
) -> None:
    with pytest.raises(NotFoundError) as caught:
        jobs.submit_segment(scan_job("0" * 64))
    assert caught.value.code == "unknown_blob"
    assert (jobs.counts(), queue.announced) == ({}, [])
    jobs.submit_segment(scan_job(blobs.put_bytes(b"scan")))
    assert len(queue.announced) == 1


def test_only_so_many_segmentations_may_be_unfinished(
    sessions: Sessions, queue: ListQueue, core: CoreServices
) -> None:
    jobs = Jobs(sessions, queue, core.files, queue_jobs=2)
    first = jobs.submit_segment(scan_job())
    jobs.submit_segment(scan_job())
    for ask in (jobs.check_room, lambda: jobs.submit_segment(scan_job())):
        with pytest.raises(BusyError) as caught:
            ask()
        assert caught.value.code == "queue_full"
    jobs.cancel(first.id)
    jobs.check_room()
    jobs.submit_segment(scan_job())

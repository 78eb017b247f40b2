"""Publish, promote, roll back, quarantine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from sqlalchemy.orm import Session, sessionmaker

from normbank.config import Settings
from normbank.entities import Recipe
from normbank.errors import ConflictError, LeaseLostError, NotFoundError
from normbank.services.jobs import Jobs
from normbank.services.registry import Registry
from normbank.storage.blobs import BlobStore
from tests.support.domains import BACKBONE, new_domain, new_state, ready_domain
from tests.support.services import ListQueue


def test_a_published_state_comes_back_byte_for_byte(registry: Registry, blobs: BlobStore) -> None:
    new_domain(registry, blobs, "a")
    state = new_state("x")
    published = registry.publish("a", state=state, promote=True, reason="initial")
    assert (published.ref, published.sha256, published.backbone) == ("a@1", state.sha256, BACKBONE)
    assert (published.recipe, published.metrics) == (state.recipe, state.metrics)
    assert registry.state_bytes(state.sha256) == state.tensors
    assert registry.active_state("a") == published == registry.version("a", 1)
    with pytest.raises(NotFoundError) as caught:
        registry.state_bytes("0" * 64)
    assert caught.value.code == "unknown_state"
    with pytest.raises(NotFoundError) as caught:
        registry.version("a", 2)
    assert caught.value.code == "unknown_version"


def test_two_versions_may_share_their_bytes(registry: Registry, blobs: BlobStore) -> None:
    new_domain(registry, blobs, "a")
    new_domain(registry, blobs, "b")
    for domain_id in ("a", "a", "b"):
        registry.publish(domain_id, state=new_state("same"), promote=True)
    assert [state.number for state in registry.versions("a")] == [1, 2]
    assert len({state.sha256 for state in registry.active_states()}) == 1


def test_a_candidate_is_kept_but_not_served(registry: Registry, blobs: BlobStore) -> None:
    new_domain(registry, blobs, "a")
    registry.publish("a", state=new_state("worse"), promote=False)
    with pytest.raises(ConflictError) as caught:
        registry.active_state("a")
    assert caught.value.code == "domain_not_ready"
    assert registry.promotions("a") == ()
    assert len(registry.versions("a")) == 1


def test_not_a_number_among_the_metrics_becomes_null(registry: Registry, blobs: BlobStore) -> None:
    new_domain(registry, blobs, "a")
    state = new_state()
    metrics = {"hd95_mm": [1.5, float("nan")], "dice": (float("inf"),)}
    odd = type(state)(state.sha256, BACKBONE, None, {}, metrics, None, state.tensors)
    assert registry.publish("a", state=odd, promote=True).metrics == {
        "hd95_mm": [1.5, None],
        "dice": [None],
    }


def test_a_job_publishes_one_version_at_most(
    registry: Registry, blobs: BlobStore, jobs: Jobs
) -> None:
    new_domain(registry, blobs, "a")
    job, _ = jobs.submit_adapt("a", Recipe())
    assert jobs.claim(job.id, "w") is not None

    def publish(n: int) -> int:
        state = new_state(f"content {n}", job.id)
        return registry.publish("a", state=state, promote=True, attempt=1).number

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(publish, range(8))) == {1}
    assert len(registry.versions("a")) == 1
    assert len(registry.promotions("a")) == 1


def test_an_attempt_that_lost_its_lease_publishes_nothing(
    registry: Registry, blobs: BlobStore, sessions: sessionmaker[Session], queue: ListQueue
) -> None:
    new_domain(registry, blobs, "a")
    jobs = Jobs(sessions, queue, Settings(lease_s=-1.0))
    job, _ = jobs.submit_adapt("a", Recipe())
    for attempt in (1, 2):
        claimed = jobs.claim(job.id, f"worker {attempt}")
        assert claimed is not None
        assert claimed.attempt == attempt
    late = new_state("late", job.id)
    with pytest.raises(LeaseLostError):
        registry.publish("a", state=late, promote=True, attempt=1)
    assert registry.versions("a") == ()
    assert registry.publish("a", state=late, promote=True, attempt=2).number == 1
    jobs.succeed(job.id, 2, {"version": 1})
    with pytest.raises(LeaseLostError):
        registry.publish("a", state=late, promote=True, attempt=2)


def test_numbers_have_no_gap_when_many_publish_at_once(
    registry: Registry, blobs: BlobStore
) -> None:
    new_domain(registry, blobs, "a")

    def publish(n: int) -> int:
        return registry.publish("a", state=new_state(str(n)), promote=n % 2 == 0).number

    with ThreadPoolExecutor(8) as pool:
        numbers = sorted(pool.map(publish, range(16)))
    assert numbers == list(range(1, 17))
    chain = [(None, None), *((p.from_version, p.to_version) for p in registry.promotions("a"))]
    assert all(before[1] == after[0] for before, after in pairwise(chain))
    assert registry.domain("a").active_version == chain[-1][1]


def test_a_rollback_is_one_more_promotion(registry: Registry, blobs: BlobStore) -> None:
    ready_domain(registry, blobs, "a")
    registry.publish("a", state=new_state("two"), promote=True, reason="gate passed")
    back = registry.promote("a", 1, registry.domain("a").revision, "key:ops", "two is worse")
    assert back.active_version == 1
    moves = [(p.from_version, p.to_version, p.actor, p.reason) for p in registry.promotions("a")]
    assert moves == [
        (None, 1, "system", ""),
        (1, 2, "system", "gate passed"),
        (2, 1, "key:ops", "two is worse"),
    ]
    again = registry.promote("a", 1, back.revision)
    assert again == back


def test_of_promotions_with_the_same_revision_one_wins(
    registry: Registry, blobs: BlobStore
) -> None:
    ready_domain(registry, blobs, "a")
    for n in range(2, 10):
        registry.publish("a", state=new_state(str(n)), promote=False)
    revision = registry.domain("a").revision

    def promote(number: int) -> str:
        try:
            return str(registry.promote("a", number, revision).active_version)
        except ConflictError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(promote, range(2, 10)))
    assert answers.count("stale_revision") == 7
    assert str(registry.domain("a").active_version) in answers


def test_a_quarantined_version_gives_way_to_the_one_served_before(
    registry: Registry, blobs: BlobStore
) -> None:
    ready_domain(registry, blobs, "a")
    registry.publish("a", state=new_state("two"), promote=True)
    registry.publish("a", state=new_state("three"), promote=False)
    served = registry.quarantine("a", 2, "hash differs")
    assert served is not None
    assert served.number == 1 == registry.domain("a").active_version
    assert registry.version("a", 2).quarantined == "hash differs"
    assert registry.promotions("a")[-1].to_version == 1
    assert "quarantined" in registry.promotions("a")[-1].reason
    with pytest.raises(ConflictError) as caught:
        registry.promote("a", 2)
    assert caught.value.code == "version_quarantined"
    assert registry.quarantine("a", 3, "never served") == served
    assert registry.quarantine("a", 1, "also bad") is None
    with pytest.raises(ConflictError):
        registry.active_state("a")


def test_many_who_find_the_same_fault_move_the_pointer_once(
    registry: Registry, blobs: BlobStore
) -> None:
    ready_domain(registry, blobs, "a")
    registry.publish("a", state=new_state("two"), promote=True)

    def quarantine(_: int) -> int | None:
        served = registry.quarantine("a", 2, "bad bytes")
        return served.number if served else None

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(quarantine, range(8))) == {1}
    assert len(registry.promotions("a")) == 3


def test_the_served_version_is_always_whole_while_it_changes(
    registry: Registry, blobs: BlobStore
) -> None:
    ready_domain(registry, blobs, "a")
    registry.publish("a", state=new_state("two"), promote=False)
    shas = {state.number: state.sha256 for state in registry.versions("a")}

    def flip(n: int) -> None:
        registry.promote("a", 1 + n % 2)

    def look(_: int) -> bool:
        state = registry.active_state("a")
        return state.sha256 == shas[state.number] and bool(registry.state_bytes(state.sha256))

    with ThreadPoolExecutor(8) as pool:
        flips = pool.map(flip, range(40))
        assert all(pool.map(look, range(80)))
        list(flips)

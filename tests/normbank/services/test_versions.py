"""Publish, promote, roll back, quarantine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from sqlalchemy.orm import Session, sessionmaker

from normbank.config import Settings
from normbank.entities import Recipe
from normbank.errors import ConflictError, LeaseLostError, NotFoundError
from normbank.services.leases import Leases
from normbank.storage.blobs import BlobStore
from normbank.wiring import CoreServices
from tests.support.domains import BACKBONE, new_domain, new_state, ready_domain
from tests.support.services import ListQueue


def test_a_published_state_comes_back_byte_for_byte(core: CoreServices, blobs: BlobStore) -> None:
    new_domain(core, blobs, "a")
    state = new_state("x")
    published = core.versions.publish("a", state=state, promote=True, reason="initial")
    assert (published.ref, published.sha256, published.backbone) == ("a@1", state.sha256, BACKBONE)
    assert (published.recipe, published.metrics) == (state.recipe, state.metrics)
    assert core.versions.state_bytes(state.sha256) == state.tensors
    assert core.versions.active("a") == published == core.versions.get("a", 1)
    with pytest.raises(NotFoundError) as caught:
        core.versions.state_bytes("0" * 64)
    assert caught.value.code == "unknown_state"
    with pytest.raises(NotFoundError) as caught:
        core.versions.get("a", 2)
    assert caught.value.code == "unknown_version"


def test_two_versions_may_share_their_bytes(core: CoreServices, blobs: BlobStore) -> None:
    new_domain(core, blobs, "a")
    new_domain(core, blobs, "b")
    for domain_id in ("a", "a", "b"):
        core.versions.publish(domain_id, state=new_state("same"), promote=True)
    assert [state.number for state in core.versions.of("a")] == [1, 2]
    assert len({state.sha256 for state in core.versions.all_active()}) == 1


def test_a_candidate_is_kept_but_not_served(core: CoreServices, blobs: BlobStore) -> None:
    new_domain(core, blobs, "a")
    core.versions.publish("a", state=new_state("worse"), promote=False)
    with pytest.raises(ConflictError) as caught:
        core.versions.active("a")
    assert caught.value.code == "domain_not_ready"
    assert core.versions.promotions("a") == ()
    assert len(core.versions.of("a")) == 1


def test_not_a_number_among_the_metrics_becomes_null(core: CoreServices, blobs: BlobStore) -> None:
    new_domain(core, blobs, "a")
    state = new_state()
    metrics = {"hd95_mm": [1.5, float("nan")], "dice": (float("inf"),)}
    odd = type(state)(state.sha256, BACKBONE, None, {}, metrics, None, state.tensors)
    assert core.versions.publish("a", state=odd, promote=True).metrics == {
        "hd95_mm": [1.5, None],
        "dice": [None],
    }


def test_a_job_publishes_one_version_at_most(core: CoreServices, blobs: BlobStore) -> None:
    new_domain(core, blobs, "a")
    job, _ = core.jobs.submit_adapt("a", Recipe())
    assert core.leases.claim(job.id, "w") is not None

    def publish(n: int) -> int:
        state = new_state(f"content {n}", job.id)
        return core.versions.publish("a", state=state, promote=True, attempt=1).number

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(publish, range(8))) == {1}
    assert len(core.versions.of("a")) == 1
    assert len(core.versions.promotions("a")) == 1


def test_an_attempt_that_lost_its_lease_publishes_nothing(
    core: CoreServices, blobs: BlobStore, sessions: sessionmaker[Session], queue: ListQueue
) -> None:
    new_domain(core, blobs, "a")
    leases = Leases(sessions, queue, Settings(lease_s=-1.0))
    job, _ = core.jobs.submit_adapt("a", Recipe())
    for attempt in (1, 2):
        claimed = leases.claim(job.id, f"worker {attempt}")
        assert claimed is not None
        assert claimed.attempt == attempt
    late = new_state("late", job.id)
    with pytest.raises(LeaseLostError):
        core.versions.publish("a", state=late, promote=True, attempt=1)
    assert core.versions.of("a") == ()
    assert core.versions.publish("a", state=late, promote=True, attempt=2).number == 1
    leases.succeed(job.id, 2, {"version": 1})
    with pytest.raises(LeaseLostError):
        core.versions.publish("a", state=late, promote=True, attempt=2)


def test_numbers_have_no_gap_when_many_publish_at_once(
    core: CoreServices, blobs: BlobStore
) -> None:
    new_domain(core, blobs, "a")

    def publish(n: int) -> int:
        return core.versions.publish("a", state=new_state(str(n)), promote=n % 2 == 0).number

    with ThreadPoolExecutor(8) as pool:
        numbers = sorted(pool.map(publish, range(16)))
    assert numbers == list(range(1, 17))
    chain = [(None, None), *((p.from_version, p.to_version) for p in core.versions.promotions("a"))]
    assert all(before[1] == after[0] for before, after in pairwise(chain))
    assert core.domains.get("a").active_version == chain[-1][1]


def test_a_rollback_is_one_more_promotion(core: CoreServices, blobs: BlobStore) -> None:
    ready_domain(core, blobs, "a")
    core.versions.publish("a", state=new_state("two"), promote=True, reason="gate passed")
    back = core.versions.promote("a", 1, core.domains.get("a").revision, "key:ops", "two is worse")
    assert back.active_version == 1
    moves = [
        (p.from_version, p.to_version, p.actor, p.reason) for p in core.versions.promotions("a")
    ]
    assert moves == [
        (None, 1, "system", ""),
        (1, 2, "system", "gate passed"),
        (2, 1, "key:ops", "two is worse"),
    ]
    again = core.versions.promote("a", 1, back.revision)
    assert again == back


def test_of_promotions_with_the_same_revision_one_wins(
    core: CoreServices, blobs: BlobStore
) -> None:
    ready_domain(core, blobs, "a")
    for n in range(2, 10):
        core.versions.publish("a", state=new_state(str(n)), promote=False)
    revision = core.domains.get("a").revision

    def promote(number: int) -> str:
        try:
            return str(core.versions.promote("a", number, revision).active_version)
        except ConflictError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(promote, range(2, 10)))
    assert answers.count("stale_revision") == 7
    assert str(core.domains.get("a").active_version) in answers


def test_a_quarantined_version_gives_way_to_the_one_served_before(
    core: CoreServices, blobs: BlobStore
) -> None:
    ready_domain(core, blobs, "a")
    core.versions.publish("a", state=new_state("two"), promote=True)
    core.versions.publish("a", state=new_state("three"), promote=False)
    served = core.versions.quarantine("a", 2, "hash differs")
    assert served is not None
    assert served.number == 1 == core.domains.get("a").active_version
    assert core.versions.get("a", 2).quarantined == "hash differs"
    assert core.versions.promotions("a")[-1].to_version == 1
    assert "quarantined" in core.versions.promotions("a")[-1].reason
    with pytest.raises(ConflictError) as caught:
        core.versions.promote("a", 2)
    assert caught.value.code == "version_quarantined"
    assert core.versions.quarantine("a", 3, "never served") == served
    assert core.versions.quarantine("a", 1, "also bad") is None
    with pytest.raises(ConflictError):
        core.versions.active("a")


def test_many_who_find_the_same_fault_move_the_pointer_once(
    core: CoreServices, blobs: BlobStore
) -> None:
    ready_domain(core, blobs, "a")
    core.versions.publish("a", state=new_state("two"), promote=True)

    def quarantine(_: int) -> int | None:
        served = core.versions.quarantine("a", 2, "bad bytes")
        return served.number if served else None

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(quarantine, range(8))) == {1}
    assert len(core.versions.promotions("a")) == 3


def test_the_served_version_is_always_whole_while_it_changes(
    core: CoreServices, blobs: BlobStore
) -> None:
    ready_domain(core, blobs, "a")
    core.versions.publish("a", state=new_state("two"), promote=False)
    shas = {state.number: state.sha256 for state in core.versions.of("a")}

    def flip(n: int) -> None:
        core.versions.promote("a", 1 + n % 2)

    def look(_: int) -> bool:
        state = core.versions.active("a")
        return state.sha256 == shas[state.number] and bool(core.versions.state_bytes(state.sha256))

    with ThreadPoolExecutor(8) as pool:
        flips = pool.map(flip, range(40))
        assert all(pool.map(look, range(80)))
        list(flips)

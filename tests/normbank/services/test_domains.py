"""Domains and cases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import Recipe
from normbank.errors import ConflictError, InvalidError, NormbankError, NotFoundError
from normbank.services.jobs import Jobs
from normbank.storage.blobs import BlobStore
from normbank.wiring import CoreServices
from tests.support.domains import new_case, new_domain, new_state, ready_domain


def test_a_domain_comes_back_as_it_was_given(core: CoreServices, blobs: BlobStore) -> None:
    rules = {"Manufacturer": "Siemens", "MagneticFieldStrength": {"min": 2.5, "max": 3.5}}
    cases = [new_case(blobs, str(n)) for n in range(3)]
    made = core.domains.create("a-1", "Site A", rules, "muse", ("thalamus",), cases)
    assert made == core.domains.get("a-1")
    assert (made.name, made.match, made.label_scheme) == ("Site A", rules, "muse")
    assert (made.structures, made.case_count) == (("thalamus",), 3)
    assert (made.revision, made.active_version, made.archived) == (1, None, False)
    stored = core.cases.of("a-1")
    assert [case.scan_sha256 for case in stored] == [case.scan_sha256 for case in cases]
    assert stored[0].shape == (160, 192, 192)
    assert stored[0].spacing_mm == (1.0, 0.9, 1.2)


@pytest.mark.parametrize("bad", ["", "A", "a b", "a_b", "a/b", "x" * 64, "a\n", "ä"])
def test_an_id_that_is_no_slug_is_refused(core: CoreServices, bad: str) -> None:
    with pytest.raises(InvalidError) as caught:
        core.domains.create(bad, "name", {}, "freesurfer", ())
    assert caught.value.code == "bad_domain_id"


@pytest.mark.parametrize("bad", ["", "  ", "a\x00b", "x" * 201])
def test_a_name_that_cannot_be_shown_is_refused(core: CoreServices, bad: str) -> None:
    with pytest.raises(InvalidError) as caught:
        core.domains.create("a", bad, {}, "freesurfer", ())
    assert caught.value.code == "bad_domain_name"


def test_an_id_is_taken_once_however_many_ask_at_once(core: CoreServices) -> None:
    def create(n: int) -> str:
        try:
            return core.domains.create("same", f"by {n}", {}, "freesurfer", ()).id
        except ConflictError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(create, range(8)))
    assert answers == ["domain_exists"] * 7 + ["same"]


def test_a_scan_counts_once_in_a_domain_and_nothing_of_the_request_stays(
    core: CoreServices, blobs: BlobStore
) -> None:
    new_domain(core, blobs, "a", cases=1)
    fresh, known = new_case(blobs, "fresh"), new_case(blobs, "a 0")
    with pytest.raises(ConflictError) as caught:
        core.cases.add("a", [fresh, known])
    assert caught.value.code == "case_exists"
    assert core.domains.get("a").case_count == 1
    assert core.domains.get("a").revision == 1
    with pytest.raises(ConflictError):
        core.domains.create("b", "B", {}, "freesurfer", (), [fresh, fresh])
    with pytest.raises(NotFoundError):
        core.domains.get("b")
    assert len(core.cases.add("a", [fresh])) == 1
    assert core.domains.get("a").revision == 2


def test_a_case_whose_file_is_gone_is_refused(core: CoreServices, blobs: BlobStore) -> None:
    case = new_case(blobs, "x")
    blobs.delete(case.labels_sha256)
    with pytest.raises(NotFoundError) as caught:
        core.domains.create("a", "A", {}, "freesurfer", (), [case])
    assert caught.value.code == "unknown_blob"


def test_of_changes_with_the_same_revision_one_wins(core: CoreServices, blobs: BlobStore) -> None:
    new_domain(core, blobs, "a")

    def rename(n: int) -> str:
        try:
            return core.domains.update("a", 1, name=f"name {n}").name
        except ConflictError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(rename, range(8)))
    assert answers.count("stale_revision") == 7
    assert core.domains.get("a").name in answers
    assert core.domains.get("a").revision == 2


def test_an_update_changes_only_what_is_given(core: CoreServices, blobs: BlobStore) -> None:
    before = new_domain(core, blobs, "a")
    after = core.domains.update("a", 1, match={"Manufacturer": "GE"}, structures=["caudate"])
    assert (after.name, after.match, after.structures) == (
        before.name,
        {"Manufacturer": "GE"},
        ("caudate",),
    )
    assert after.updated_at > before.updated_at
    with pytest.raises(InvalidError):
        core.domains.update("a", 2, match={"Manufacturer": {"regex": "("}})


def test_an_archived_domain_is_not_served_but_keeps_its_id(
    core: CoreServices, blobs: BlobStore
) -> None:
    ready_domain(core, blobs, "a")
    ready_domain(core, blobs, "b")
    core.domains.archive("a", core.domains.get("a").revision)
    assert core.domains.get("a").archived
    assert [domain.id for domain in core.domains.page().items] == ["b"]
    assert [domain.id for domain in core.domains.page(include_archived=True).items] == ["a", "b"]
    assert [state.domain_id for state in core.versions.all_active()] == ["b"]
    with pytest.raises(NotFoundError):
        core.versions.active("a")
    codes = []
    for act in (
        lambda: core.domains.create("a", "A", {}, "freesurfer", ()),
        lambda: core.domains.update("a", core.domains.get("a").revision, name="x"),
        lambda: core.versions.publish("a", state=new_state(), promote=True),
        lambda: core.domains.archive("a", core.domains.get("a").revision),
    ):
        with pytest.raises(ConflictError) as caught:
            act()
        codes.append(caught.value.code)
    assert codes == ["domain_exists", *["domain_archived"] * 3]


def test_a_domain_with_a_job_in_flight_is_not_archived(
    core: CoreServices, blobs: BlobStore, jobs: Jobs
) -> None:
    new_domain(core, blobs, "a")
    jobs.submit_adapt("a", Recipe())
    with pytest.raises(ConflictError) as caught:
        core.domains.archive("a", 1)
    assert caught.value.code == "job_in_flight"


def test_pages_hold_every_domain_once(core: CoreServices) -> None:
    names = [f"d-{n}" for n in range(7)]
    for name in names:
        core.domains.create(name, name, {}, "freesurfer", ())
    seen, cursor = [], None
    while True:
        page = core.domains.page(cursor, limit=3)
        seen += [domain.id for domain in page.items]
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    assert seen == names
    assert core.domains.page(limit=7).next_cursor is None


@pytest.mark.parametrize("cursor", ["ä", "a", "AA==", "%%%", "\x00"])
def test_a_cursor_that_is_not_ours_is_refused(core: CoreServices, cursor: str) -> None:
    with pytest.raises(InvalidError) as caught:
        core.domains.page(cursor)
    assert caught.value.code == "bad_cursor"


def test_what_is_asked_of_an_unknown_domain_is_not_found(core: CoreServices) -> None:
    for ask in (
        lambda: core.domains.get("x"),
        lambda: core.cases.of("x"),
        lambda: core.cases.add("x", []),
        lambda: core.versions.of("x"),
        lambda: core.versions.get("x", 1),
        lambda: core.versions.active("x"),
        lambda: core.versions.promote("x", 1),
        lambda: core.domains.update("x", 1, name="y"),
    ):
        with pytest.raises(NormbankError) as caught:
            ask()
        assert caught.value.code == "unknown_domain"


def test_every_change_is_in_the_audit_trail_and_the_chain_holds(
    core: CoreServices, blobs: BlobStore
) -> None:
    ready_domain(core, blobs, "a")
    core.domains.update("a", 2, name="new", actor="key:ops")
    core.versions.publish("a", state=new_state("two"), promote=False)
    core.versions.promote("a", 2, None, "key:ops", "looks better")
    core.versions.quarantine("a", 2, "hash differs")
    core.domains.archive("a", core.domains.get("a").revision)
    events = core.audit.newest()
    assert [event.action for event in reversed(events)] == [
        "domain.create",
        "version.publish",
        "domain.update",
        "version.publish",
        "version.promote",
        "version.quarantine",
        "domain.archive",
    ]
    assert [event.actor for event in events].count("key:ops") == 2
    assert core.audit.first_broken() is None


def test_the_chain_holds_when_many_write_at_once(core: CoreServices) -> None:
    def create(n: int) -> None:
        core.domains.create(f"d-{n}", "name", {}, "freesurfer", ())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(create, range(32)))
    assert len(core.audit.newest()) == 32
    assert core.audit.first_broken() is None


@pytest.mark.parametrize(
    ("tampering", "broken"),
    [
        ("UPDATE audit_event SET actor = 'nobody' WHERE number = 3", 3),
        ("UPDATE audit_event SET detail = '{}' WHERE number = 2", 2),
        ("UPDATE audit_event SET at = at + interval '1 second' WHERE number = 4", 4),
        ("DELETE FROM audit_event WHERE number = 2", 3),
        ("DELETE FROM audit_event WHERE number = 1", 2),
    ],
)
def test_tampering_with_the_audit_trail_is_found(
    core: CoreServices, sessions: sessionmaker[Session], tampering: str, broken: int
) -> None:
    for n in range(5):
        core.domains.create(f"d-{n}", "name", {}, "freesurfer", ())
    with sessions.begin() as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))  # no triggers
        session.execute(text(tampering))
    assert core.audit.first_broken() == broken

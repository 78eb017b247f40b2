"""The audit trail's end: what was cut off is found, by the anchor and by heads kept elsewhere."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import AuditHead
from normbank.errors import InvalidError
from normbank.wiring import CoreServices

Sessions = sessionmaker[Session]


@pytest.fixture
def trail(core: CoreServices) -> CoreServices:
    """Ten events."""
    for n in range(10):
        core.domains.create(f"d-{n}", "name", {}, "freesurfer", ())
    return core


def tamper(sessions: Sessions, *statements: str) -> None:
    """What the owner of the tables can do with their triggers off."""
    with sessions.begin() as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            session.execute(text(statement))


CUT = "DELETE FROM audit_event WHERE number > 7"
MOVED = "UPDATE audit_anchor SET number = 7, hash = (SELECT hash FROM audit_event WHERE number = 7)"


def test_three_events_cut_off_at_the_end_are_found(trail: CoreServices, sessions: Sessions) -> None:
    assert trail.audit.fault() == ""
    tamper(sessions, CUT)
    assert trail.audit.fault() == "events 8 to 10 are missing; its anchor knows them"


def test_what_is_written_after_a_cut_does_not_hide_it(
    trail: CoreServices, sessions: Sessions
) -> None:
    tamper(sessions, CUT)
    for n in range(5):
        trail.domains.create(f"e-{n}", "name", {}, "freesurfer", ())
    assert trail.audit.first_broken() == 11
    assert "event 11 is not what was written" in trail.audit.fault()


def test_a_cut_whose_anchor_was_moved_too_is_found_by_a_head_kept_elsewhere(
    trail: CoreServices, sessions: Sessions
) -> None:
    head = trail.audit.head()
    assert head is not None
    tamper(sessions, CUT, MOVED)
    assert trail.audit.fault() == ""
    assert "events 8 to 10 are missing" in trail.audit.fault(AuditHead.parse(str(head)))
    for n in range(3):
        trail.domains.create(f"e-{n}", "name", {}, "freesurfer", ())
    assert "event 10 is not the one" in trail.audit.fault(AuditHead(head.number, head.hash[:12]))


def test_a_trail_without_its_anchor_is_not_whole(trail: CoreServices, sessions: Sessions) -> None:
    tamper(sessions, "DELETE FROM audit_anchor")
    assert "anchor" in trail.audit.fault()


def test_the_log_names_the_head_once_it_is_committed(
    core: CoreServices, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "normbank.services.audit")
    core.domains.create("a", "name", {}, "freesurfer", ())
    heads = [record.head for record in caplog.records if record.msg == "audit head"]  # type: ignore[attr-defined]
    assert heads == [str(core.audit.head())]


@pytest.mark.parametrize("words", ["", "7", "7:", "7:abc", "x:" + "a" * 64, "7:" + "g" * 64])
def test_a_head_that_is_none_is_refused(words: str) -> None:
    with pytest.raises(InvalidError):
        AuditHead.parse(words)

"""API keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import Role
from normbank.errors import NotFoundError
from normbank.services.keys import Keys

Sessions = sessionmaker[Session]


@pytest.fixture
def keys(sessions: Sessions) -> Keys:
    return Keys(sessions)


def test_a_secret_finds_its_key(keys: Keys) -> None:
    key, secret = keys.create("pacs", Role.SEGMENT)
    keys.create("ops", Role.ADMIN)
    found = keys.authenticate(secret)
    assert found is not None
    assert (found.id, found.role, found.name) == (key.id, Role.SEGMENT, "pacs")
    assert secret.startswith(f"nb_{key.prefix}_")


def test_the_secret_is_not_stored(keys: Keys, sessions: Sessions) -> None:
    _, secret = keys.create("pacs", Role.SEGMENT)
    with sessions() as session:
        stored = session.execute(text("SELECT row_to_json(k)::text FROM api_key k")).scalar_one()
        trail = session.execute(text("SELECT string_agg(detail::text, '') FROM audit_event"))
        assert secret.split("_", 2)[2] not in stored + trail.scalar_one()


@pytest.mark.parametrize(
    "change", ["x{}", "{}x", "", "nb_", "nb__", "nb_a_b", "ä", "\x00", "nb_\x00_x"]
)
def test_any_other_text_is_refused(keys: Keys, change: str) -> None:
    _, secret = keys.create("pacs", Role.SEGMENT)
    assert keys.authenticate(change.format(secret)) is None


def test_another_keys_prefix_does_not_help(keys: Keys) -> None:
    first, _ = keys.create("a", Role.ADMIN)
    _, secret = keys.create("b", Role.SEGMENT)
    assert keys.authenticate(f"nb_{first.prefix}_{secret.split('_', 2)[2]}") is None


def test_an_expired_key_is_refused(keys: Keys) -> None:
    now = datetime.now(UTC)
    _, over = keys.create("over", Role.ADMIN, now - timedelta(seconds=1))
    _, good = keys.create("good", Role.ADMIN, now + timedelta(hours=1))
    assert keys.authenticate(over) is None
    assert keys.authenticate(good) is not None


def test_a_revoked_key_is_refused_and_stays_listed(keys: Keys) -> None:
    key, secret = keys.create("pacs", Role.MONITOR)
    revoked = keys.revoke(key.id)
    assert keys.authenticate(secret) is None
    assert keys.revoke(key.id).revoked_at == revoked.revoked_at
    assert [listed.revoked_at for listed in keys.list()] == [revoked.revoked_at]
    with pytest.raises(NotFoundError):
        keys.revoke("nothing")


def test_the_last_use_is_noted_at_most_once_a_minute(keys: Keys, sessions: Sessions) -> None:
    _, secret = keys.create("pacs", Role.SEGMENT)
    keys.authenticate(secret)
    first = keys.list()[0].last_used_at
    keys.authenticate(secret)
    assert first is not None
    assert keys.list()[0].last_used_at == first
    with sessions.begin() as session:
        session.execute(text("UPDATE api_key SET last_used_at = now() - interval '61 seconds'"))
    keys.authenticate(secret)
    latest = keys.list()[0].last_used_at
    assert latest is not None
    assert latest > first

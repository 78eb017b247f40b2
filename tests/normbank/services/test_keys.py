"""API keys."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import ApiKey, Role
from normbank.errors import ConflictError, InvalidError, NotFoundError
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


def admins(keys: Keys) -> list[ApiKey]:
    """Admin keys that can be used."""
    now = datetime.now(UTC)
    return [
        key
        for key in keys.list()
        if key.role is Role.ADMIN
        and key.revoked_at is None
        and (key.expires_at is None or key.expires_at > now)
    ]


def test_many_that_start_at_once_make_one_first_key_that_expires(keys: Keys) -> None:
    kept: list[str] = []
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: keys.make_first(7, kept.append), range(16)))
    assert made.count(True) == 1
    (secret,), (key,) = kept, admins(keys)
    assert keys.authenticate(secret) is not None
    assert key.expires_at is not None
    assert timedelta(days=6.9) < key.expires_at - datetime.now(UTC) <= timedelta(days=7)


def test_the_first_admin_key_that_somebody_asks_for_ends_the_one_made_by_itself(
    keys: Keys,
) -> None:
    kept: list[str] = []
    keys.make_first(7, kept.append)
    keys.create("pacs", Role.SEGMENT)
    assert keys.authenticate(kept[0]) is not None
    _, secret = keys.create("ops", Role.ADMIN)
    assert keys.authenticate(kept[0]) is None
    assert [key.name for key in admins(keys)] == ["ops"]
    assert not keys.make_first(7, kept.append)
    keys.create("second", Role.ADMIN)
    assert keys.authenticate(secret) is not None


def test_a_first_key_that_cannot_be_written_down_is_not_made(keys: Keys) -> None:
    def fail(_: str) -> None:
        raise OSError("read-only")

    with pytest.raises(OSError, match="read-only"):
        keys.make_first(7, fail)
    assert keys.list() == ()


def test_a_first_key_may_be_given_and_does_not_come_back_when_it_has_ended(keys: Keys) -> None:
    given = "nb_0123456789_" + "x" * 43
    assert keys.make_first(7, lambda _: None, given=given)
    key = keys.authenticate(given)
    assert key is not None
    keys.revoke(key.id)
    with pytest.raises(ConflictError):
        keys.make_first(7, lambda _: None, given=given)
    with pytest.raises(InvalidError):
        keys.make_first(7, lambda _: None, given="letmein")


def test_who_owns_the_database_gets_a_new_first_key_when_its_own_is_lost_or_expires_soon(
    keys: Keys, sessions: Sessions
) -> None:
    kept: list[str] = []
    assert keys.renew_first(7, kept.append, "")
    assert not keys.renew_first(7, kept.append, kept[-1])
    with sessions.begin() as session:
        session.execute(text("UPDATE api_key SET expires_at = now() + interval '1 hour'"))
    assert keys.renew_first(7, kept.append, kept[-1])
    assert keys.authenticate(kept[0]) is not None  # who has just read it may go on
    with sessions.begin() as session:
        session.execute(text("UPDATE api_key SET expires_at = now() - interval '1 hour'"))
    assert keys.renew_first(7, kept.append, kept[-1])
    assert keys.renew_first(7, kept.append, "")  # the file was lost
    assert keys.authenticate(kept[2]) is None
    assert len(admins(keys)) == 1


def test_a_first_key_that_was_ended_on_purpose_is_not_renewed(keys: Keys) -> None:
    kept: list[str] = []
    keys.renew_first(7, kept.append, "")
    real, _ = keys.create("ops", Role.ADMIN)
    assert not keys.renew_first(7, kept.append, kept[0])
    keys.revoke(real.id)
    assert keys.renew_first(7, kept.append, kept[0])  # else nobody could do anything

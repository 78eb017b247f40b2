"""API keys: made, checked, revoked. Only their hashes are stored."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import ApiKey, Role
from normbank.errors import ConflictError, InvalidError, NotFoundError
from normbank.services.audit import record_event
from normbank.storage.keys import KeyStore

PREFIX_BYTES = 5
SECRET_BYTES = 32
USE_EVERY_S = 60.0

SYSTEM = "system"
FIRST_KEY_NAME = "first admin"
RENEW_AHEAD = timedelta(days=1)

Keep = Callable[[str], None]
"""Puts a secret where its owner finds it; called before the key is committed."""


class Keys:
    """Who may do what.

    Parameters
    ----------
    sessions : makes database sessions
    """

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def create(
        self,
        name: str,
        role: Role,
        expires_at: datetime | None = None,
        *,
        actor: str = SYSTEM,
    ) -> tuple[ApiKey, str]:
        """Make a key; the first admin key that somebody asks for ends the one made by itself.

        Returns
        -------
        the key, and its secret `nb_<prefix>_<random>`, shown this once
        """
        secret = draw_secret()
        with self._sessions.begin() as session:
            store = KeyStore(session)
            ended: tuple[ApiKey, ...] = ()
            if role is Role.ADMIN:
                store.take_turns()
                ended = _end_first(store)
            key = store.add(name, role, prefix_of(secret), digest(secret), expires_at)
            record_event(session, actor, "key.create", key.id, name=name, role=role)
            for first in ended:
                record_event(session, actor, "key.revoke", first.id, reason="another admin key")
        return key, secret

    def make_first(self, days: float, keep: Keep, *, given: str = "") -> bool:
        """Make the first admin key, unless some admin key can be used.

        However many processes ask at once, one key is made in a database.

        Parameters
        ----------
        days : until it expires
        given : its secret, chosen by somebody; drawn when empty

        Raises
        ------
        InvalidError
            `bad_secret`, when the one given is no secret.
        ConflictError
            `key_ended`, when the one given belongs to a key that has ended.
        """
        with self._sessions.begin() as session:
            KeyStore(session).take_turns()
            if KeyStore(session).usable_admins():
                return False
            _add_first(session, days, keep, given)
            return True

    def renew_first(self, days: float, keep: Keep, held: str) -> bool:
        """Make the first admin key anew for who owns the database's own files.

        Nothing happens while the secret held is an admin's for a day or more,
        nor where its key was ended on purpose and another admin key can be used.

        Parameters
        ----------
        days : until the new one expires
        held : the secret that the owner has now; may be empty
        """
        with self._sessions.begin() as session:
            store = KeyStore(session)
            store.take_turns()
            admins = store.usable_admins()
            known = _known(store, held)
            revoked = known is not None and known.revoked_at is not None
            if (known in admins and _lasts(known)) or (revoked and admins):
                return False
            ended = _end_first(store, but=known)
            _add_first(session, days, keep)
            for first in ended:
                record_event(session, SYSTEM, "key.revoke", first.id, reason="renewed")
            return True

    def authenticate(self, secret: str) -> ApiKey | None:
        """The key this secret belongs to; None when unknown, expired, revoked."""
        prefix = prefix_of(secret)
        if not prefix:
            return None
        with self._sessions.begin() as session:
            store = KeyStore(session)
            entry = store.usable(prefix)
            stored = entry[1] if entry else digest("")
            if not hmac.compare_digest(stored, digest(secret)) or entry is None:
                return None
            store.note_use(entry[0].id, USE_EVERY_S)
            return entry[0]

    def list(self) -> tuple[ApiKey, ...]:
        """Every key, oldest first, revoked ones too."""
        with self._sessions() as session:
            return KeyStore(session).all()

    def revoke(self, key_id: str, *, actor: str = SYSTEM) -> ApiKey:
        """Refuse a key from now on; NotFoundError `unknown_key`."""
        with self._sessions.begin() as session:
            key = KeyStore(session).revoke(key_id)
            if key is None:
                raise NotFoundError("There is no such key.", code="unknown_key")
            record_event(session, actor, "key.revoke", key_id)
            return key


def _add_first(session: Session, days: float, keep: Keep, given: str = "") -> None:
    """Add a first admin key whose secret lies with its owner before it is committed."""
    store, secret = KeyStore(session), given or draw_secret()
    prefix = prefix_of(secret)
    if not prefix or len(secret) < SECRET_BYTES:
        raise InvalidError("A secret is nb_PREFIX_RANDOM, letters and digits.", code="bad_secret")
    if store.with_prefix(prefix) is not None:
        raise ConflictError("The key of this secret has ended; give a new one.", code="key_ended")
    expires_at = datetime.now(UTC) + timedelta(days=days)
    key = store.add(FIRST_KEY_NAME, Role.ADMIN, prefix, digest(secret), expires_at, bootstrap=True)
    record_event(session, SYSTEM, "key.create", key.id, name=key.name, role=key.role)
    if not given:
        keep(secret)


def _end_first(store: KeyStore, but: ApiKey | None = None) -> tuple[ApiKey, ...]:
    """Revoke the usable first admin keys, perhaps but one."""
    ended = tuple(key for key in store.usable_admins() if key.bootstrap and key != but)
    for key in ended:
        store.revoke(key.id)
    return ended


def _known(store: KeyStore, secret: str) -> ApiKey | None:
    """The key this secret belongs to, usable or not."""
    entry = store.with_prefix(prefix_of(secret))
    return entry[0] if entry and hmac.compare_digest(entry[1], digest(secret)) else None


def _lasts(key: ApiKey | None) -> bool:
    """Whether a key needs no renewal yet."""
    ends_at = key.expires_at if key else None
    return ends_at is None or ends_at > datetime.now(UTC) + RENEW_AHEAD


def draw_secret() -> str:
    return f"nb_{secrets.token_hex(PREFIX_BYTES)}_{secrets.token_urlsafe(SECRET_BYTES)}"


def prefix_of(secret: str) -> str:
    """What finds a secret's row; empty when the text is no secret."""
    parts = secret.split("_", 2)
    if len(parts) != 3 or parts[0] != "nb" or not parts[1].isalnum() or not secret.isascii():
        return ""
    return parts[1]


def digest(secret: str) -> str:
    """sha256 of a secret; it is random, so no slow hash is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()

"""API keys: made, checked, revoked. Only their hashes are stored."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime

from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import ApiKey, Role
from normbank.errors import NotFoundError
from normbank.services.audit import record_event
from normbank.storage.keys import KeyStore

PREFIX_BYTES = 5
SECRET_BYTES = 32
USE_EVERY_S = 60.0


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
        actor: str = "system",
    ) -> tuple[ApiKey, str]:
        """Make a key.

        Returns
        -------
        the key, and its secret `nb_<prefix>_<random>`, shown this once
        """
        prefix = secrets.token_hex(PREFIX_BYTES)
        secret = f"nb_{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"
        with self._sessions.begin() as session:
            key = KeyStore(session).add(name, role, prefix, digest(secret), expires_at)
            record_event(session, actor, "key.create", key.id, name=name, role=role)
        return key, secret

    def authenticate(self, secret: str) -> ApiKey | None:
        """The key this secret belongs to; None when unknown, expired, revoked."""
        parts = secret.split("_", 2)
        if len(parts) != 3 or parts[0] != "nb" or not parts[1].isalnum() or not secret.isascii():
            return None
        with self._sessions.begin() as session:
            store = KeyStore(session)
            entry = store.usable(parts[1])
            stored = entry[1] if entry else digest("")
            if not hmac.compare_digest(stored, digest(secret)) or entry is None:
                return None
            store.note_use(entry[0].id, USE_EVERY_S)
            return entry[0]

    def list(self) -> tuple[ApiKey, ...]:
        """Every key, oldest first, revoked ones too."""
        with self._sessions() as session:
            return KeyStore(session).all()

    def revoke(self, key_id: str, *, actor: str = "system") -> ApiKey:
        """Refuse a key from now on; NotFoundError `unknown_key`."""
        with self._sessions.begin() as session:
            key = KeyStore(session).revoke(key_id)
            if key is None:
                raise NotFoundError("There is no such key.", code="unknown_key")
            record_event(session, actor, "key.revoke", key_id)
            return key


def digest(secret: str) -> str:
    """sha256 of a secret; it is random, so no slow hash is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()

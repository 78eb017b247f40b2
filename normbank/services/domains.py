"""Domains: created, changed, archived."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import Domain, NewCase, NewState, Page
from normbank.errors import ConflictError, InvalidError
from normbank.services.audit import record_event
from normbank.services.cases import Cases
from normbank.services.locking import locked_domain, unknown_domain
from normbank.services.matching import validate_rules
from normbank.services.versions import move_active
from normbank.storage.domains import DomainStore
from normbank.storage.jobs import JobStore
from normbank.storage.versions import VersionStore

SLUG = re.compile(r"[a-z0-9-]{1,63}")
# `auto` means something to /segment; `import` is a path below /domains.
RESERVED = ("auto", "import")
NAME_LIMIT = 200


PAGE = 200


class Domains:
    """Which domains there are.

    Parameters
    ----------
    sessions : makes database sessions
    cases : the service that adds a new domain's first ones
    """

    def __init__(self, sessions: sessionmaker[Session], cases: Cases) -> None:
        self._sessions = sessions
        self._cases = cases

    def create(
        self,
        domain_id: str,
        name: str,
        match: Mapping[str, Any],
        label_scheme: str,
        structures: Sequence[str],
        cases: Sequence[NewCase] = (),
        *,
        actor: str = "system",
    ) -> Domain:
        """Record a new domain with its first cases, all or nothing.

        Parameters
        ----------
        domain_id : `[a-z0-9-]{1,63}`
        match : rules over header facts, see `normbank.services.matching`
        structures : names the cases annotate; empty: those present in each
        cases : their files already lie in the blob store
        actor : who does it, for the audit trail

        Raises
        ------
        InvalidError
            `bad_domain_id`, `bad_domain_name`, `bad_match`.
        ConflictError
            `domain_exists` (also when archived), `case_exists`.
        NotFoundError
            `unknown_blob`.
        """
        _check_domain(domain_id, name, match)
        with self._sessions.begin() as session:
            _add_domain(session, domain_id, name, match, label_scheme, structures)
            self._cases.add_to(session, domain_id, cases)
            record_event(session, actor, "domain.create", domain_id, name=name, cases=len(cases))
            return DomainStore(session).get_known(domain_id)

    def create_from_state(
        self,
        domain_id: str,
        name: str,
        match: Mapping[str, Any],
        label_scheme: str,
        state: NewState,
        *,
        actor: str = "system",
    ) -> Domain:
        """Record a new domain that serves a given state at once, all or nothing.

        It has no cases yet.

        Raises
        ------
        InvalidError
            `bad_domain_id`, `bad_domain_name`, `bad_match`.
        ConflictError
            `domain_exists`, also when archived.
        """
        _check_domain(domain_id, name, match)
        with self._sessions.begin() as session:
            _add_domain(session, domain_id, name, match, label_scheme, ())
            row = locked_domain(session, domain_id)
            added = VersionStore(session).add(domain_id, state)
            move_active(session, row, added.number, actor, "imported")
            record_event(session, actor, "domain.import", added.ref, name=name, sha256=state.sha256)
            return DomainStore(session).get_known(domain_id)

    def check_new_id(self, domain_id: str) -> None:
        """Refuse an id that no new domain can have.

        Raises
        ------
        InvalidError
            `bad_domain_id`.
        ConflictError
            `domain_exists`, also when the domain is archived.
        """
        if not SLUG.fullmatch(domain_id) or domain_id in RESERVED:
            raise InvalidError(
                "A domain id has 1 to 63 characters, a to z, 0 to 9 and '-', and is not "
                f"{' or '.join(RESERVED)}.",
                code="bad_domain_id",
            )
        with self._sessions() as session:
            if DomainStore(session).get(domain_id) is not None:
                raise domain_exists(domain_id)

    def get(self, domain_id: str) -> Domain:
        """One domain, archived or not; NotFoundError `unknown_domain`."""
        with self._sessions() as session:
            domain = DomainStore(session).get(domain_id)
        if domain is None:
            raise unknown_domain(domain_id)
        return domain

    def served(self, domain_id: str) -> Domain:
        """One that is not archived; NotFoundError `unknown_domain`."""
        domain = self.get(domain_id)
        if domain.archived:
            raise unknown_domain(domain_id)
        return domain

    def page(
        self, cursor: str | None = None, limit: int = 50, include_archived: bool = False
    ) -> Page[Domain]:
        """One page of domains by id; InvalidError `bad_cursor`."""
        with self._sessions() as session:
            return DomainStore(session).page(cursor, limit, include_archived)

    def all(self) -> tuple[Domain, ...]:
        """Every domain that is not archived, by id."""
        found: list[Domain] = []
        cursor: str | None = None
        while True:
            page = self.page(cursor, PAGE)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return tuple(found)

    def update(
        self,
        domain_id: str,
        revision: int,
        *,
        name: str | None = None,
        match: Mapping[str, Any] | None = None,
        structures: Sequence[str] | None = None,
        actor: str = "system",
    ) -> Domain:
        """Change what is given, where `revision` is still the current one.

        Raises
        ------
        ConflictError
            `stale_revision`, `domain_archived`.
        InvalidError
            `bad_match`, `bad_domain_name`.
        """
        if name is not None:
            check_name(name)
        if match is not None:
            validate_rules(match)
        values = {"name": name, "match": match, "structures": structures}
        changes = {key: value for key, value in values.items() if value is not None}
        with self._sessions.begin() as session:
            row = locked_domain(session, domain_id, revision)
            store = DomainStore(session)
            store.touch(row, **changes)
            record_event(session, actor, "domain.update", domain_id, changed=sorted(changes))
            return store.get_known(domain_id)

    def archive(self, domain_id: str, revision: int, *, actor: str = "system") -> None:
        """Take a domain out of service; its id stays taken, its rows stay.

        Raises
        ------
        ConflictError
            `stale_revision`, `domain_archived`, `job_in_flight`.
        """
        with self._sessions.begin() as session:
            row = locked_domain(session, domain_id, revision)
            if JobStore(session).has_active(domain_id):
                raise ConflictError(
                    f"The domain '{domain_id}' has a job in flight; cancel it first.",
                    code="job_in_flight",
                )
            DomainStore(session).archive(row)
            record_event(session, actor, "domain.archive", domain_id)


def _check_domain(domain_id: str, name: str, match: Mapping[str, Any]) -> None:
    if not SLUG.fullmatch(domain_id):
        raise InvalidError(
            "A domain id has 1 to 63 characters, a to z, 0 to 9 and '-'.", code="bad_domain_id"
        )
    check_name(name)
    validate_rules(match)


def _add_domain(
    session: Session,
    domain_id: str,
    name: str,
    match: Mapping[str, Any],
    label_scheme: str,
    structures: Sequence[str],
) -> None:
    if not DomainStore(session).add(domain_id, name, match, label_scheme, structures):
        raise domain_exists(domain_id)


def domain_exists(domain_id: str) -> ConflictError:
    return ConflictError(f"The domain '{domain_id}' exists.", code="domain_exists")


def check_name(name: str) -> None:
    """Raise InvalidError `bad_domain_name` unless the name can be shown."""
    if not name.strip() or len(name) > NAME_LIMIT or not name.isprintable():
        raise InvalidError(
            f"A name has 1 to {NAME_LIMIT} printable characters.", code="bad_domain_name"
        )

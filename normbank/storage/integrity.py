"""Rows about stored files that went bad, and about who has looked."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from normbank.schema import CorruptBlobRow, ScrubRow, TallyRow


class IntegrityStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add_corrupt(self, sha256: str) -> None:
        """Remember a bad file; nothing changes when it is known."""
        self._session.execute(insert(CorruptBlobRow).values(sha256=sha256).on_conflict_do_nothing())

    def drop_corrupt(self, sha256: str) -> None:
        """Forget a file that is good again, or gone as it should."""
        self._session.execute(delete(CorruptBlobRow).where(CorruptBlobRow.sha256 == sha256))

    def corrupt(self, prefix: str = "") -> tuple[str, ...]:
        """The bad files whose hashes begin so."""
        statement = select(CorruptBlobRow.sha256).where(CorruptBlobRow.sha256.startswith(prefix))
        return tuple(self._session.scalars(statement.order_by(CorruptBlobRow.sha256)))

    def count_corrupt(self) -> int:
        return self._session.scalars(select(func.count()).select_from(CorruptBlobRow)).one()

    def count_up(self, name: str) -> None:
        """One more of these."""
        statement = insert(TallyRow).values(name=name, total=1)
        self._session.execute(
            statement.on_conflict_do_update(
                index_elements=[TallyRow.name], set_={"total": TallyRow.total + 1}
            )
        )

    def tallies(self) -> dict[str, int]:
        """Every count by its name."""
        return {row.name: row.total for row in self._session.scalars(select(TallyRow))}

    def add_prefixes(self, prefixes: Iterable[str]) -> None:
        """Have these looked at; those that are known stay as they are."""
        rows = [{"prefix": prefix} for prefix in prefixes]
        self._session.execute(insert(ScrubRow).values(rows).on_conflict_do_nothing())

    def claim_prefix(self, every_s: float) -> str | None:
        """The prefix that waits longest, now checked by the caller; None when none is due."""
        due = or_(
            ScrubRow.checked_at.is_(None),
            ScrubRow.checked_at < func.now() - timedelta(seconds=every_s),
        )
        oldest = (
            select(ScrubRow.prefix)
            .where(due)
            .order_by(ScrubRow.checked_at.asc().nulls_first(), ScrubRow.prefix)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        claimed = (
            update(ScrubRow)
            .where(ScrubRow.prefix == oldest)
            .values(checked_at=func.now())
            .returning(ScrubRow.prefix)
        )
        return self._session.scalars(claimed).one_or_none()

"""Rows of versions, their states' bytes, and promotions."""

from __future__ import annotations

from sqlalchemy import Select, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from normbank.entities import DomainState, NewState, Promotion
from normbank.schema import DomainRow, PromotionRow, StateRow, VersionRow


class VersionStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, domain_id: str, state: NewState) -> DomainState:
        """Insert the next number; the domain's row must be locked."""
        self.store_tensors(state.sha256, state.tensors)
        newest = select(func.coalesce(func.max(VersionRow.number), 0)).where(
            VersionRow.domain_id == domain_id
        )
        row = VersionRow(
            domain_id=domain_id,
            number=self._session.scalars(newest).one() + 1,
            state_sha256=state.sha256,
            backbone=state.backbone,
            parent=state.parent,
            recipe=dict(state.recipe),
            metrics=dict(state.metrics),
            job_id=state.job_id,
        )
        self._session.add(row)
        self._session.flush()
        self._session.refresh(row)
        return _state(row)

    def get(self, domain_id: str, number: int) -> DomainState | None:
        return self._one(
            select(VersionRow).where(VersionRow.domain_id == domain_id, VersionRow.number == number)
        )

    def of(self, domain_id: str) -> tuple[DomainState, ...]:
        """A domain's versions, oldest first."""
        statement = (
            select(VersionRow).where(VersionRow.domain_id == domain_id).order_by(VersionRow.number)
        )
        return tuple(_state(row) for row in self._session.scalars(statement))

    def of_job(self, job_id: str) -> DomainState | None:
        return self._one(select(VersionRow).where(VersionRow.job_id == job_id))

    def active(self, domain_id: str) -> DomainState | None:
        return self._one(_active().where(DomainRow.id == domain_id))

    def all_active(self) -> tuple[DomainState, ...]:
        """What is served, of every unarchived domain, by domain id."""
        statement = _active().where(DomainRow.archived_at.is_(None)).order_by(DomainRow.id)
        return tuple(_state(row) for row in self._session.scalars(statement))

    def tensors(self, sha256: str) -> bytes | None:
        statement = select(StateRow.tensors).where(StateRow.sha256 == sha256)
        return self._session.scalars(statement).one_or_none()

    def store_tensors(self, sha256: str, tensors: bytes) -> bool:
        """Keep a state's checked bytes; those under its hash that differ have rotted.

        Returns
        -------
        whether anything was written
        """
        statement = insert(StateRow).values(sha256=sha256, tensors=tensors)
        written = self._session.scalars(
            statement.on_conflict_do_update(
                index_elements=[StateRow.sha256],
                set_={"tensors": statement.excluded.tensors},
                where=StateRow.tensors != statement.excluded.tensors,
            ).returning(StateRow.sha256)
        )
        return written.one_or_none() is not None

    def quarantined(self) -> tuple[DomainState, ...]:
        """What is refused, of every unarchived domain, by domain id and number."""
        statement = (
            select(VersionRow)
            .join(DomainRow, DomainRow.id == VersionRow.domain_id)
            .where(VersionRow.quarantined.is_not(None), DomainRow.archived_at.is_(None))
            .order_by(VersionRow.domain_id, VersionRow.number)
        )
        return tuple(_state(row) for row in self._session.scalars(statement))

    def quarantine(self, domain_id: str, number: int, why: str | None) -> None:
        """Refuse a version for a reason; None: no longer."""
        self._session.execute(
            update(VersionRow)
            .where(VersionRow.domain_id == domain_id, VersionRow.number == number)
            .values(quarantined=why)
        )

    def newest_promoted_sound(self, domain_id: str) -> int | None:
        """The version promoted last among those that are not quarantined."""
        statement = (
            select(PromotionRow.to_version)
            .join(
                VersionRow,
                (VersionRow.domain_id == PromotionRow.domain_id)
                & (VersionRow.number == PromotionRow.to_version),
            )
            .where(PromotionRow.domain_id == domain_id, VersionRow.quarantined.is_(None))
            .order_by(PromotionRow.id.desc())
            .limit(1)
        )
        return self._session.scalars(statement).first()

    def add_promotion(
        self,
        domain_id: str,
        from_version: int | None,
        to_version: int | None,
        actor: str,
        reason: str,
    ) -> None:
        self._session.add(
            PromotionRow(
                domain_id=domain_id,
                from_version=from_version,
                to_version=to_version,
                actor=actor,
                reason=reason,
            )
        )
        self._session.flush()

    def promotions(self, domain_id: str) -> tuple[Promotion, ...]:
        """A domain's promotions, oldest first."""
        statement = (
            select(PromotionRow)
            .where(PromotionRow.domain_id == domain_id)
            .order_by(PromotionRow.id)
        )
        return tuple(_promotion(row) for row in self._session.scalars(statement))

    def _one(self, statement: Select[VersionRow]) -> DomainState | None:
        row = self._session.scalars(
            statement, execution_options={"populate_existing": True}
        ).one_or_none()
        return None if row is None else _state(row)


def _active() -> Select[VersionRow]:
    return select(VersionRow).join(
        DomainRow,
        (DomainRow.id == VersionRow.domain_id) & (DomainRow.active_version == VersionRow.number),
    )


def _state(row: VersionRow) -> DomainState:
    return DomainState(
        domain_id=row.domain_id,
        number=row.number,
        sha256=row.state_sha256,
        backbone=row.backbone,
        parent=row.parent,
        recipe=row.recipe,
        metrics=row.metrics,
        job_id=row.job_id,
        quarantined=row.quarantined,
        created_at=row.created_at,
    )


def _promotion(row: PromotionRow) -> Promotion:
    return Promotion(
        domain_id=row.domain_id,
        from_version=row.from_version,
        to_version=row.to_version,
        actor=row.actor,
        reason=row.reason,
        created_at=row.created_at,
    )

"""Rows of jobs and of idempotency keys. Leases run by the database's clock."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, cast, func, or_, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from normbank.entities import Job, JobKind, JobState
from normbank.entities.jobs import IDENTIFYING
from normbank.schema import IdempotencyRow, JobRow

KEY_LIFE = timedelta(days=1)
SWEEP_ROWS = 200
ACTIVE = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class EarlierRequest:
    """What an idempotency key came with before."""

    fingerprint: str
    job_id: str | None


class JobStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(
        self,
        kind: JobKind,
        domain_id: str | None,
        payload: Mapping[str, Any],
        blobs: Sequence[str] = (),
    ) -> Job:
        row = JobRow(
            id=uuid.uuid4().hex,
            kind=kind.value,
            domain_id=domain_id,
            payload=dict(payload),
            blobs=list(blobs),
        )
        self._session.add(row)
        return self._flushed(row)

    def get(self, job_id: str) -> Job | None:
        row = self._session.get(JobRow, job_id, populate_existing=True)
        return None if row is None else _job(row)

    def get_known(self, job_id: str) -> Job:
        """A job that this transaction holds already."""
        self._session.flush()
        return _job(self._session.get_one(JobRow, job_id, populate_existing=True))

    def counts(self) -> dict[tuple[JobKind, JobState], int]:
        """Unfinished jobs by kind and state."""
        statement = (
            select(JobRow.kind, JobRow.state, func.count())
            .where(JobRow.state.in_(ACTIVE))
            .group_by(JobRow.kind, JobRow.state)
        )
        return {
            (JobKind(kind), JobState(state)): count
            for kind, state, count in self._session.execute(statement)
        }

    def has_active(self, domain_id: str, kind: JobKind | None = None) -> bool:
        """Whether the domain has a queued or running job."""
        statement = select(JobRow.id).where(JobRow.domain_id == domain_id, JobRow.state.in_(ACTIVE))
        if kind is not None:
            statement = statement.where(JobRow.kind == kind.value)
        return self._session.scalars(statement.limit(1)).first() is not None

    def locked(self, job_id: str) -> JobRow | None:
        """The row, locked until the transaction ends."""
        return self._session.get(
            JobRow, job_id, with_for_update={"key_share": True}, populate_existing=True
        )

    def is_free(self, row: JobRow) -> bool:
        """Whether a locked row may be taken: queued, or its lease is over."""
        free = select(JobRow.id).where(JobRow.id == row.id, or_(_queued(), _lost()))
        return self._session.scalars(free).first() is not None

    def start(self, row: JobRow, worker: str, lease_s: float) -> Job:
        """Lease a locked row to a worker."""
        self._session.execute(
            update(JobRow)
            .where(JobRow.id == row.id)
            .values(
                state=JobState.RUNNING.value,
                attempt=JobRow.attempt + 1,
                worker=worker,
                progress=0.0,
                step="",
                eta_s=None,
                heartbeat_at=func.clock_timestamp(),
                lease_until=_lease_end(lease_s),
                started_at=func.coalesce(JobRow.started_at, func.now()),
            )
        )
        return self.get_known(row.id)

    def prolong(
        self, job_id: str, attempt: int, lease_s: float, columns: Mapping[str, Any]
    ) -> bool | None:
        """Prolong the owner's lease and keep what it told.

        Returns
        -------
        whether somebody asked to stop; None when `attempt` is not the owner
        """
        news = {column: value for column, value in columns.items() if value is not None}
        statement = (
            update(JobRow)
            .where(
                JobRow.id == job_id,
                JobRow.attempt == attempt,
                JobRow.state == JobState.RUNNING.value,
            )
            .values(heartbeat_at=func.clock_timestamp(), lease_until=_lease_end(lease_s), **news)
            .returning(JobRow.cancel_requested)
        )
        return self._session.scalars(statement).one_or_none()

    def finish(
        self,
        row: JobRow,
        state: JobState,
        *,
        result: Mapping[str, Any] | None = None,
        code: str | None = None,
        detail: str | None = None,
    ) -> None:
        """End a locked row."""
        row.state = state.value
        row.lease_until = None
        row.eta_s = None
        row.result = None if result is None else dict(result)
        row.error_code, row.error_detail = code, detail
        if row.kind == JobKind.PACS:
            kept = row.payload.items()
            row.payload = {key: value for key, value in kept if key not in IDENTIFYING}
        row.finished_at = self._session.scalars(select(func.now())).one()
        if state is JobState.SUCCEEDED:
            row.progress = 1.0
        self._session.flush()

    def locked_lost(self) -> list[JobRow]:
        """Running rows whose lease is over, those nobody else is looking at."""
        return self._locked_some(_lost())

    def locked_unheard(self, after_s: float) -> list[JobRow]:
        """Queued rows announced too long ago, or whose time has come, that nobody looks at."""
        late = JobRow.announced_at < func.now() - timedelta(seconds=after_s)
        return self._locked_some(_queued() & or_(late, JobRow.announced_at < JobRow.not_before))

    def postpone(self, row: JobRow, delay_s: float, step: str) -> None:
        """Put a locked row back in the queue for later; this attempt does not count as lost."""
        row.state = JobState.QUEUED.value
        row.lease_until, row.eta_s = None, None
        row.step = step
        row.postponements += 1
        now = self._session.scalars(select(func.clock_timestamp())).one()
        row.not_before = now + timedelta(seconds=delay_s)
        self._session.flush()

    def remember(self, job_id: str, attempt: int, news: Mapping[str, Any]) -> bool:
        """Add to the payload of the owner's job; whether `attempt` is the owner."""
        statement = (
            update(JobRow)
            .where(
                JobRow.id == job_id,
                JobRow.attempt == attempt,
                JobRow.state == JobState.RUNNING.value,
            )
            .values(payload=JobRow.payload.concat(cast(dict(news), JSONB)))
            .returning(JobRow.id)
        )
        return self._session.scalars(statement).one_or_none() is not None

    def announce_again(self, row: JobRow) -> Job:
        """Put a locked row back in the queue, as announced now."""
        row.state = JobState.QUEUED.value
        row.lease_until = None
        row.announced_at = self._session.scalars(select(func.clock_timestamp())).one()
        return self._flushed(row)

    def take_key(self, actor: str, key: str, fingerprint: str) -> EarlierRequest | None:
        """Take an idempotency key; what it came with before, if it is taken.

        Waits for a transaction that is just taking the same key.
        """
        fresh = insert(IdempotencyRow).values(actor=actor, key=key, fingerprint=fingerprint)
        taken = fresh.on_conflict_do_update(
            index_elements=[IdempotencyRow.actor, IdempotencyRow.key],
            set_={"fingerprint": fingerprint, "job_id": None, "created_at": func.now()},
            where=IdempotencyRow.created_at < func.now() - KEY_LIFE,
        ).returning(IdempotencyRow.key)
        if self._session.execute(taken).first() is not None:
            return None
        row = self._session.get_one(IdempotencyRow, (actor, key), populate_existing=True)
        return EarlierRequest(row.fingerprint, row.job_id)

    def bind_key(self, actor: str, key: str, job_id: str) -> None:
        self._session.execute(
            update(IdempotencyRow)
            .where(IdempotencyRow.actor == actor, IdempotencyRow.key == key)
            .values(job_id=job_id)
        )

    def _locked_some(self, condition: ColumnElement[bool]) -> list[JobRow]:
        statement = (
            select(JobRow)
            .where(condition)
            .order_by(JobRow.created_at)
            .limit(SWEEP_ROWS)
            .with_for_update(skip_locked=True, key_share=True)
            .execution_options(populate_existing=True)
        )
        return list(self._session.scalars(statement))

    def _flushed(self, row: JobRow) -> Job:
        self._session.flush()
        self._session.refresh(row)
        return _job(row)


def _lease_end(lease_s: float) -> ColumnElement[Any]:
    return func.clock_timestamp() + timedelta(seconds=lease_s)


def _queued() -> ColumnElement[bool]:
    due = or_(JobRow.not_before.is_(None), JobRow.not_before <= func.clock_timestamp())
    return (JobRow.state == JobState.QUEUED.value) & due


def _lost() -> ColumnElement[bool]:
    return (JobRow.state == JobState.RUNNING.value) & (JobRow.lease_until < func.clock_timestamp())


def _job(row: JobRow) -> Job:
    return Job(
        id=row.id,
        kind=JobKind(row.kind),
        domain_id=row.domain_id,
        state=JobState(row.state),
        attempt=row.attempt,
        progress=row.progress,
        step=row.step,
        eta_s=row.eta_s,
        payload=row.payload,
        result=row.result,
        error_code=row.error_code,
        error_detail=row.error_detail,
        cancel_requested=row.cancel_requested,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        postponements=row.postponements,
    )

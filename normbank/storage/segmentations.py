"""Rows of segmentations and of request errors."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from normbank.entities import DomainState, JobState, Segmentation, SegmentationSummary, Traffic
from normbank.schema import JobRow, RequestErrorRow, SegmentationRow

FINISHED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class SegmentationStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(
        self,
        state: DomainState,
        labels_sha256: str,
        summary: SegmentationSummary,
        latency_s: float,
        retention_s: float,
        job_id: str | None,
    ) -> Segmentation:
        """Insert an answer; the first one where the job has one already."""
        statement = (
            insert(SegmentationRow)
            .values(
                id=uuid.uuid4().hex,
                domain_id=state.domain_id,
                version=state.number,
                backbone=state.backbone,
                state_sha256=state.sha256,
                labels_sha256=labels_sha256,
                summary=summary.to_json(),
                latency_s=latency_s,
                job_id=job_id,
                expires_at=func.now() + timedelta(seconds=retention_s),
            )
            .on_conflict_do_nothing(index_elements=[SegmentationRow.job_id])
            .returning(SegmentationRow)
        )
        row = self._session.scalars(statement).one_or_none()
        if row is None:
            row = self._session.scalars(_of_job(job_id)).one()
        return _segmentation(row)

    def of_job(self, job_id: str) -> Segmentation | None:
        row = self._session.scalars(_of_job(job_id)).one_or_none()
        return None if row is None else _segmentation(row)

    def get(self, segmentation_id: str) -> Segmentation | None:
        row = self._session.get(SegmentationRow, segmentation_id)
        return None if row is None else _segmentation(row)

    def add_error(self, domain_id: str | None, code: str) -> None:
        self._session.add(RequestErrorRow(domain_id=domain_id, code=code))

    def traffic(self, domain_id: str, window_s: float, newest: int) -> Traffic:
        since = func.now() - timedelta(seconds=window_s)
        latency = SegmentationRow.latency_s.asc()
        answered = select(
            func.count(),
            func.percentile_cont(0.5).within_group(latency),
            func.percentile_cont(0.95).within_group(latency),
        ).where(SegmentationRow.domain_id == domain_id, SegmentationRow.created_at >= since)
        count, p50_s, p95_s = self._session.execute(answered).one()
        failed = select(func.count()).where(
            RequestErrorRow.domain_id == domain_id, RequestErrorRow.created_at >= since
        )
        return Traffic(
            window_s=window_s,
            count=count,
            errors=self._session.scalars(failed).one(),
            latency_p50_s=p50_s,
            latency_p95_s=p95_s,
            volumes_mm3=self._volumes(domain_id, newest),
        )

    def _volumes(self, domain_id: str, newest: int) -> tuple[Mapping[str, Any], ...]:
        """The newest answers' volumes, oldest first, whatever the window."""
        statement = (
            select(
                SegmentationRow.created_at,
                SegmentationRow.version,
                SegmentationRow.summary["volumes_mm3"],
            )
            .where(SegmentationRow.domain_id == domain_id)
            .order_by(SegmentationRow.created_at.desc())
            .limit(newest)
        )
        return tuple(
            {"at": created_at.isoformat(), "version": version, "volumes_mm3": volumes or {}}
            for created_at, version, volumes in reversed(self._session.execute(statement).all())
        )

    def drop_expired(self, limit: int) -> list[str]:
        """Forget labels past their retention; their content hashes."""
        expired = (
            select(SegmentationRow.id, SegmentationRow.labels_sha256)
            .where(
                SegmentationRow.labels_sha256.is_not(None),
                SegmentationRow.expires_at <= func.now(),
            )
            .order_by(SegmentationRow.expires_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = self._session.execute(expired).all()
        self._session.execute(
            update(SegmentationRow)
            .where(SegmentationRow.id.in_([row.id for row in rows]))
            .values(labels_sha256=None)
        )
        return [row.labels_sha256 for row in rows if row.labels_sha256 is not None]

    def drop_finished_inputs(self, limit: int) -> list[str]:
        """Forget the files of finished jobs; their content hashes."""
        finished = (
            select(JobRow.id, JobRow.blobs)
            .where(JobRow.state.in_(FINISHED), func.cardinality(JobRow.blobs) > 0)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = self._session.execute(finished).all()
        self._session.execute(
            update(JobRow).where(JobRow.id.in_([row.id for row in rows])).values(blobs=[])
        )
        return [sha256 for row in rows for sha256 in row.blobs]


def _segmentation(row: SegmentationRow) -> Segmentation:
    return Segmentation(
        id=row.id,
        domain_id=row.domain_id,
        version=row.version,
        backbone=row.backbone,
        state_sha256=row.state_sha256,
        labels_sha256=row.labels_sha256,
        summary=SegmentationSummary.from_json(row.summary),
        job_id=row.job_id,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def _of_job(job_id: str | None) -> Select[SegmentationRow]:
    return select(SegmentationRow).where(SegmentationRow.job_id == job_id)

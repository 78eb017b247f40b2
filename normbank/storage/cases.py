"""Rows of labelled cases."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from normbank.entities import Case, Flag, NewCase
from normbank.schema import CaseRow


class CaseStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, domain_id: str, cases: Sequence[NewCase]) -> tuple[Case, ...]:
        """Insert in the given order; IntegrityError on a scan the domain has."""
        rows = [_row(domain_id, case) for case in cases]
        for row in rows:
            self._session.add(row)
            self._session.flush()
            self._session.refresh(row)
        return tuple(_case(row) for row in rows)

    def of(self, domain_id: str) -> tuple[Case, ...]:
        """A domain's cases, oldest first."""
        statement = select(CaseRow).where(CaseRow.domain_id == domain_id).order_by(CaseRow.number)
        return tuple(_case(row) for row in self._session.scalars(statement))

    def get(self, domain_id: str, case_id: str) -> Case | None:
        row = self._session.get(CaseRow, case_id)
        return _case(row) if row is not None and row.domain_id == domain_id else None

    def remove(self, case_id: str) -> None:
        self._session.delete(self._session.get_one(CaseRow, case_id))

    def count(self, domain_id: str) -> int:
        statement = select(func.count()).where(CaseRow.domain_id == domain_id)
        return self._session.scalars(statement).one()


def _row(domain_id: str, case: NewCase) -> CaseRow:
    return CaseRow(
        id=uuid.uuid4().hex,
        domain_id=domain_id,
        scan_sha256=case.scan_sha256,
        labels_sha256=case.labels_sha256,
        scan_name=case.scan_name,
        labels_name=case.labels_name,
        label_scheme=case.label_scheme,
        structures=list(case.structures),
        shape=[int(n) for n in case.shape],
        spacing_mm=[float(mm) for mm in case.spacing_mm],
        voxels_sha256=case.voxels_sha256,
        findings={
            "volumes_ml": dict(case.volumes_ml),
            "flags": [flag.to_json() for flag in case.flags],
        },
    )


def _case(row: CaseRow) -> Case:
    x, y, z = row.shape
    dx, dy, dz = row.spacing_mm
    return Case(
        id=row.id,
        domain_id=row.domain_id,
        scan_sha256=row.scan_sha256,
        labels_sha256=row.labels_sha256,
        scan_name=row.scan_name,
        labels_name=row.labels_name,
        label_scheme=row.label_scheme,
        structures=tuple(row.structures),
        shape=(x, y, z),
        spacing_mm=(dx, dy, dz),
        created_at=row.created_at,
        volumes_ml=dict(row.findings.get("volumes_ml", {})),
        flags=tuple(Flag.from_json(flag) for flag in row.findings.get("flags", ())),
    )

"""The tables. PostgreSQL only; changed by Alembic alone (`migrations/`)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Json = dict[str, Any]

ACTIVE = "state IN ('queued', 'running')"


class Row(DeclarativeBase):
    """What every table shares: types of columns and names of constraints."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        str: Text(),
        float: Double(),
        bytes: LargeBinary(),
        datetime: DateTime(timezone=True),
        Json: JSONB(none_as_null=True),
        list[str]: ARRAY(Text()),
        list[int]: ARRAY(Integer()),
        list[float]: ARRAY(Double()),
    }


def now_column() -> Mapped[datetime]:
    """When the row was written, by the database's clock."""
    return mapped_column(server_default=func.now())


class DomainRow(Row):
    __tablename__ = "domain"
    __table_args__ = (
        CheckConstraint("id ~ '^[a-z0-9-]{1,63}$'", name="slug"),
        ForeignKeyConstraint(
            ["id", "active_version"],
            ["domain_version.domain_id", "domain_version.number"],
            use_alter=True,
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    match: Mapped[Json]
    label_scheme: Mapped[str]
    structures: Mapped[list[str]]
    active_version: Mapped[int | None]
    revision: Mapped[int] = mapped_column(server_default="1")
    archived_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = now_column()
    updated_at: Mapped[datetime] = now_column()


class StateRow(Row):
    """A state's bytes; two versions may share them."""

    __tablename__ = "state"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    tensors: Mapped[bytes]
    created_at: Mapped[datetime] = now_column()


class VersionRow(Row):
    """Immutable but for `quarantined`."""

    __tablename__ = "domain_version"
    __table_args__ = (CheckConstraint("number >= 1", name="from_one"),)

    domain_id: Mapped[str] = mapped_column(ForeignKey("domain.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state_sha256: Mapped[str] = mapped_column(ForeignKey("state.sha256"), index=True)
    backbone: Mapped[str]
    parent: Mapped[str | None]
    recipe: Mapped[Json]
    metrics: Mapped[Json]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("job.id"), unique=True)
    quarantined: Mapped[str | None]
    created_at: Mapped[datetime] = now_column()


class PromotionRow(Row):
    __tablename__ = "promotion"
    __table_args__ = (
        ForeignKeyConstraint(
            ["domain_id", "from_version"],
            ["domain_version.domain_id", "domain_version.number"],
        ),
        ForeignKeyConstraint(
            ["domain_id", "to_version"],
            ["domain_version.domain_id", "domain_version.number"],
        ),
        Index(None, "domain_id", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    domain_id: Mapped[str] = mapped_column(ForeignKey("domain.id"))
    from_version: Mapped[int | None]
    to_version: Mapped[int | None]
    actor: Mapped[str]
    reason: Mapped[str]
    created_at: Mapped[datetime] = now_column()


class CaseRow(Row):
    """A scan counts once in a domain, whatever its labels."""

    __tablename__ = "labelled_case"
    __table_args__ = (
        UniqueConstraint("domain_id", "scan_sha256"),
        UniqueConstraint("domain_id", "voxels_sha256"),
    )

    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), unique=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    domain_id: Mapped[str] = mapped_column(ForeignKey("domain.id"))
    scan_sha256: Mapped[str] = mapped_column(index=True)
    labels_sha256: Mapped[str] = mapped_column(index=True)
    scan_name: Mapped[str]
    labels_name: Mapped[str]
    label_scheme: Mapped[str]
    structures: Mapped[list[str]]
    shape: Mapped[list[int]]
    spacing_mm: Mapped[list[float]]
    voxels_sha256: Mapped[str | None]
    findings: Mapped[Json] = mapped_column(server_default=text("'{}'::jsonb"))
    created_at: Mapped[datetime] = now_column()


class JobRow(Row):
    """One unit of worker work; `blobs` are kept while it is unfinished."""

    __tablename__ = "job"
    __table_args__ = (
        CheckConstraint("kind IN ('adapt', 'segment', 'pacs')", name="kind"),
        CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="state"
        ),
        CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="leased"),
        Index(
            "uq_job_active_adapt",
            "domain_id",
            unique=True,
            postgresql_where=text(f"kind = 'adapt' AND {ACTIVE}"),
        ),
        Index("ix_job_active", "state", "lease_until", postgresql_where=text(ACTIVE)),
        Index(None, "domain_id", "created_at"),
        Index("ix_job_blobs", "blobs", postgresql_using="gin"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    domain_id: Mapped[str | None] = mapped_column(ForeignKey("domain.id"))
    state: Mapped[str] = mapped_column(server_default="queued")
    attempt: Mapped[int] = mapped_column(server_default="0")
    postponements: Mapped[int] = mapped_column(server_default="0")
    progress: Mapped[float] = mapped_column(server_default="0")
    step: Mapped[str] = mapped_column(server_default="")
    eta_s: Mapped[float | None]
    payload: Mapped[Json]
    blobs: Mapped[list[str]]
    result: Mapped[Json | None]
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]
    cancel_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    worker: Mapped[str | None]
    heartbeat_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    announced_at: Mapped[datetime] = now_column()
    not_before: Mapped[datetime | None]
    created_at: Mapped[datetime] = now_column()
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class IdempotencyRow(Row):
    """Which request an actor's `Idempotency-Key` came with, and its job."""

    __tablename__ = "idempotency_key"

    actor: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("job.id"))
    created_at: Mapped[datetime] = now_column()


class SegmentationRow(Row):
    __tablename__ = "segmentation"
    __table_args__ = (
        ForeignKeyConstraint(
            ["domain_id", "version"], ["domain_version.domain_id", "domain_version.number"]
        ),
        Index(None, "domain_id", "created_at"),
        Index(
            "ix_segmentation_kept", "expires_at", postgresql_where=text("labels_sha256 IS NOT NULL")
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    domain_id: Mapped[str]
    version: Mapped[int]
    backbone: Mapped[str]
    state_sha256: Mapped[str]
    labels_sha256: Mapped[str | None] = mapped_column(index=True)
    summary: Mapped[Json]
    latency_s: Mapped[float]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("job.id"), unique=True)
    created_at: Mapped[datetime] = now_column()
    expires_at: Mapped[datetime]


class RequestErrorRow(Row):
    """A refused or failed request; its domain need not exist."""

    __tablename__ = "request_error"
    __table_args__ = (Index(None, "domain_id", "created_at"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    domain_id: Mapped[str | None]
    code: Mapped[str]
    created_at: Mapped[datetime] = now_column()


class KeyRow(Row):
    """An API key by the sha256 of its secret."""

    __tablename__ = "api_key"
    __table_args__ = (CheckConstraint("role IN ('segment', 'monitor', 'admin')", name="role"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    role: Mapped[str]
    prefix: Mapped[str] = mapped_column(unique=True)
    secret_sha256: Mapped[str]
    created_at: Mapped[datetime] = now_column()
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    bootstrap: Mapped[bool] = mapped_column(server_default=text("false"))


class AnchorRow(Row):
    """The newest audit event, kept apart from the trail; a trigger writes it, and only forwards."""

    __tablename__ = "audit_anchor"
    __table_args__ = (CheckConstraint("single", name="single"),)

    single: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    number: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str]


class AuditRow(Row):
    """Append-only (triggers refuse the rest); `detail` is kept verbatim."""

    __tablename__ = "audit_event"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    detail: Mapped[Json] = mapped_column(JSON())
    previous: Mapped[str]
    hash: Mapped[str]


class HeartbeatRow(Row):
    """When a process of a worker was last seen: its main process, or the pool's child."""

    __tablename__ = "worker_heartbeat"
    __table_args__ = (CheckConstraint("process IN ('main', 'pool')", name="process"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    process: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[datetime] = now_column()
    seen_at: Mapped[datetime] = now_column()


class ScrubRow(Row):
    """When the blobs whose hashes begin with two digits were last read and compared."""

    __tablename__ = "blob_scrub"

    prefix: Mapped[str] = mapped_column(primary_key=True)
    checked_at: Mapped[datetime | None]


class CorruptBlobRow(Row):
    """A stored file that is not what it was, or gone though a row points to it."""

    __tablename__ = "corrupt_blob"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    found_at: Mapped[datetime] = now_column()


class PacsRow(Row):
    """How far the listener has followed a PACS; `salt` is mixed into the hashes of its UIDs."""

    __tablename__ = "pacs"

    name: Mapped[str] = mapped_column(primary_key=True)
    salt: Mapped[str]
    cursor: Mapped[int] = mapped_column(BigInteger, server_default="0")
    looked_at: Mapped[datetime] = now_column()


class PacsSeriesRow(Row):
    """A series that the listener has seen; its UIDs are kept until it is done with."""

    __tablename__ = "pacs_series"
    __table_args__ = (
        CheckConstraint("state IN ('settling', 'taken', 'done')", name="state"),
        CheckConstraint("(state = 'done') = (series IS NULL)", name="forgotten"),
        Index("ix_pacs_series_open", "pacs", "state", postgresql_where=text("state <> 'done'")),
    )

    pacs: Mapped[str] = mapped_column(ForeignKey("pacs.name"), primary_key=True)
    series_hash: Mapped[str] = mapped_column(primary_key=True)
    study: Mapped[str | None]
    series: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default="settling")
    stirred: Mapped[bool] = mapped_column(server_default=text("false"))
    instances: Mapped[int | None]
    changed_at: Mapped[datetime] = now_column()
    content: Mapped[str | None]
    version: Mapped[int] = mapped_column(server_default="0")
    passed_over: Mapped[str | None]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("job.id"), index=True)
    created_at: Mapped[datetime] = now_column()


class TallyRow(Row):
    """Counts over all processes, of events that ask for an operator."""

    __tablename__ = "tally"

    name: Mapped[str] = mapped_column(primary_key=True)
    total: Mapped[int] = mapped_column(BigInteger)

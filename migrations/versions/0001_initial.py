"""initial."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
NOW = sa.text("now()")
ACTIVE = "state IN ('queued', 'running')"

TABLES = (
    "audit_event",
    "api_key",
    "request_error",
    "segmentation",
    "promotion",
    "domain_version",
    "state",
    "idempotency_key",
    "job",
    "labelled_case",
    "domain",
)

APPEND_ONLY = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$
"""


def upgrade() -> None:
    create_domains()
    create_jobs()
    create_versions()
    create_answers()
    create_access()


def downgrade() -> None:
    op.drop_constraint("fk_domain_id_active_version", "domain")
    for table in TABLES:
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_change")


def create_domains() -> None:
    """Domains and their cases."""
    op.create_table(
        "domain",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("match", JSONB(), nullable=False),
        sa.Column("label_scheme", sa.Text(), nullable=False),
        sa.Column("structures", ARRAY(sa.Text()), nullable=False),
        sa.Column("active_version", sa.Integer(), nullable=True),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column("archived_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("updated_at", MOMENT, server_default=NOW, nullable=False),
        sa.CheckConstraint("id ~ '^[a-z0-9-]{1,63}$'", name="ck_domain_slug"),
        sa.PrimaryKeyConstraint("id", name="pk_domain"),
    )
    op.create_table(
        "labelled_case",
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("domain_id", sa.Text(), nullable=False),
        sa.Column("scan_sha256", sa.Text(), nullable=False),
        sa.Column("labels_sha256", sa.Text(), nullable=False),
        sa.Column("scan_name", sa.Text(), nullable=False),
        sa.Column("labels_name", sa.Text(), nullable=False),
        sa.Column("label_scheme", sa.Text(), nullable=False),
        sa.Column("structures", ARRAY(sa.Text()), nullable=False),
        sa.Column("shape", ARRAY(sa.Integer()), nullable=False),
        sa.Column("spacing_mm", ARRAY(sa.Double()), nullable=False),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(["domain_id"], ["domain.id"], name="fk_labelled_case_domain_id"),
        sa.PrimaryKeyConstraint("id", name="pk_labelled_case"),
        sa.UniqueConstraint(
            "domain_id", "scan_sha256", name="uq_labelled_case_domain_id_scan_sha256"
        ),
        sa.UniqueConstraint("number", name="uq_labelled_case_number"),
    )
    op.create_index("ix_labelled_case_labels_sha256", "labelled_case", ["labels_sha256"])
    op.create_index("ix_labelled_case_scan_sha256", "labelled_case", ["scan_sha256"])


def create_jobs() -> None:
    """Jobs, and the requests that made them."""
    op.create_table(
        "job",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("domain_id", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("progress", sa.Double(), server_default="0", nullable=False),
        sa.Column("step", sa.Text(), server_default="", nullable=False),
        sa.Column("eta_s", sa.Double(), nullable=True),
        sa.Column("payload", JSONB(), nullable=False),
        sa.Column("blobs", ARRAY(sa.Text()), nullable=False),
        sa.Column("result", JSONB(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column(
            "cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False
        ),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("heartbeat_at", MOMENT, nullable=True),
        sa.Column("lease_until", MOMENT, nullable=True),
        sa.Column("announced_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("started_at", MOMENT, nullable=True),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="ck_job_leased"),
        sa.CheckConstraint("kind IN ('adapt', 'segment')", name="ck_job_kind"),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
            name="ck_job_state",
        ),
        sa.ForeignKeyConstraint(["domain_id"], ["domain.id"], name="fk_job_domain_id"),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
    )
    op.create_index(
        "ix_job_active", "job", ["state", "lease_until"], postgresql_where=sa.text(ACTIVE)
    )
    op.create_index("ix_job_blobs", "job", ["blobs"], postgresql_using="gin")
    op.create_index("ix_job_domain_id_created_at", "job", ["domain_id", "created_at"])
    op.create_index(
        "uq_job_active_adapt",
        "job",
        ["domain_id"],
        unique=True,
        postgresql_where=sa.text(f"kind = 'adapt' AND {ACTIVE}"),
    )
    op.create_table(
        "idempotency_key",
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_idempotency_key_job_id"),
        sa.PrimaryKeyConstraint("actor", "key", name="pk_idempotency_key"),
    )


def create_versions() -> None:
    """Versions, their bytes, and which of them is served."""
    op.create_table(
        "state",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("tensors", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_state"),
    )
    op.create_table(
        "domain_version",
        sa.Column("domain_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state_sha256", sa.Text(), nullable=False),
        sa.Column("backbone", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=True),
        sa.Column("recipe", JSONB(), nullable=False),
        sa.Column("metrics", JSONB(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("quarantined", sa.Text(), nullable=True),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.CheckConstraint("number >= 1", name="ck_domain_version_from_one"),
        sa.ForeignKeyConstraint(["domain_id"], ["domain.id"], name="fk_domain_version_domain_id"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_domain_version_job_id"),
        sa.ForeignKeyConstraint(
            ["state_sha256"], ["state.sha256"], name="fk_domain_version_state_sha256"
        ),
        sa.PrimaryKeyConstraint("domain_id", "number", name="pk_domain_version"),
        sa.UniqueConstraint("job_id", name="uq_domain_version_job_id"),
    )
    op.create_index("ix_domain_version_state_sha256", "domain_version", ["state_sha256"])
    op.create_table(
        "promotion",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("domain_id", sa.Text(), nullable=False),
        sa.Column("from_version", sa.Integer(), nullable=True),
        sa.Column("to_version", sa.Integer(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(
            ["domain_id", "from_version"],
            ["domain_version.domain_id", "domain_version.number"],
            name="fk_promotion_domain_id_from_version",
        ),
        sa.ForeignKeyConstraint(
            ["domain_id", "to_version"],
            ["domain_version.domain_id", "domain_version.number"],
            name="fk_promotion_domain_id_to_version",
        ),
        sa.ForeignKeyConstraint(["domain_id"], ["domain.id"], name="fk_promotion_domain_id"),
        sa.PrimaryKeyConstraint("id", name="pk_promotion"),
    )
    op.create_index("ix_promotion_domain_id_id", "promotion", ["domain_id", "id"])
    op.create_foreign_key(
        "fk_domain_id_active_version",
        "domain",
        "domain_version",
        ["id", "active_version"],
        ["domain_id", "number"],
    )


def create_answers() -> None:
    """What was answered and refused."""
    op.create_table(
        "segmentation",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("domain_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("backbone", sa.Text(), nullable=False),
        sa.Column("state_sha256", sa.Text(), nullable=False),
        sa.Column("labels_sha256", sa.Text(), nullable=True),
        sa.Column("summary", JSONB(), nullable=False),
        sa.Column("latency_s", sa.Double(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["domain_id", "version"],
            ["domain_version.domain_id", "domain_version.number"],
            name="fk_segmentation_domain_id_version",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_segmentation_job_id"),
        sa.PrimaryKeyConstraint("id", name="pk_segmentation"),
        sa.UniqueConstraint("job_id", name="uq_segmentation_job_id"),
    )
    op.create_index(
        "ix_segmentation_domain_id_created_at", "segmentation", ["domain_id", "created_at"]
    )
    op.create_index(
        "ix_segmentation_kept",
        "segmentation",
        ["expires_at"],
        postgresql_where=sa.text("labels_sha256 IS NOT NULL"),
    )
    op.create_index("ix_segmentation_labels_sha256", "segmentation", ["labels_sha256"])
    op.create_table(
        "request_error",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("domain_id", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_request_error"),
    )
    op.create_index(
        "ix_request_error_domain_id_created_at", "request_error", ["domain_id", "created_at"]
    )


def create_access() -> None:
    """Keys, and who did what."""
    op.create_table(
        "api_key",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("last_used_at", MOMENT, nullable=True),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.CheckConstraint("role IN ('segment', 'monitor', 'admin')", name="ck_api_key_role"),
        sa.PrimaryKeyConstraint("id", name="pk_api_key"),
        sa.UniqueConstraint("prefix", name="uq_api_key_prefix"),
    )
    op.create_table(
        "audit_event",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit_event"),
    )
    op.execute(APPEND_ONLY)
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_event"
        " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )

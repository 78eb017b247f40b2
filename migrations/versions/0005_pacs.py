"""Series of a PACS: the job that segments one, what the listener has seen, jobs that wait."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
NOW = sa.text("now()")
ZERO = sa.text("0")
KIND = "ck_job_kind"


def upgrade() -> None:
    op.drop_constraint(KIND, "job", type_="check")
    op.create_check_constraint(KIND, "job", "kind IN ('adapt', 'segment', 'pacs')")
    count = sa.Column("postponements", sa.Integer(), server_default=ZERO, nullable=False)
    op.add_column("job", count)
    op.add_column("job", sa.Column("not_before", MOMENT, nullable=True))
    op.create_table(
        "pacs",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("salt", sa.Text(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), server_default=ZERO, nullable=False),
        sa.Column("looked_at", MOMENT, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_pacs"),
    )
    _create_series()


def _create_series() -> None:
    op.create_table(
        "pacs_series",
        sa.Column("pacs", sa.Text(), nullable=False),
        sa.Column("series_hash", sa.Text(), nullable=False),
        sa.Column("study", sa.Text(), nullable=True),
        sa.Column("series", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), server_default="settling", nullable=False),
        sa.Column("stirred", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=True),
        sa.Column("changed_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("content", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), server_default=ZERO, nullable=False),
        sa.Column("passed_over", sa.Text(), nullable=True),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.CheckConstraint("state IN ('settling', 'taken', 'done')", name="ck_pacs_series_state"),
        sa.CheckConstraint("(state = 'done') = (series IS NULL)", name="ck_pacs_series_forgotten"),
        sa.ForeignKeyConstraint(["pacs"], ["pacs.name"], name="fk_pacs_series_pacs"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_pacs_series_job_id"),
        sa.PrimaryKeyConstraint("pacs", "series_hash", name="pk_pacs_series"),
    )
    op.create_index("ix_pacs_series_job_id", "pacs_series", ["job_id"])
    op.create_index(
        "ix_pacs_series_open",
        "pacs_series",
        ["pacs", "state"],
        postgresql_where=sa.text("state <> 'done'"),
    )


def downgrade() -> None:
    op.drop_table("pacs_series")
    op.drop_table("pacs")
    op.drop_column("job", "not_before")
    op.drop_column("job", "postponements")
    op.execute("DELETE FROM job WHERE kind = 'pacs'")
    op.drop_constraint(KIND, "job", type_="check")
    op.create_check_constraint(KIND, "job", "kind IN ('adapt', 'segment')")

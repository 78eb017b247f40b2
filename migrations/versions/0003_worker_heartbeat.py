"""worker heartbeats, and what the workers find out about stored files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
NOW = sa.text("now()")


def upgrade() -> None:
    op.create_table(
        "worker_heartbeat",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("started_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("seen_at", MOMENT, server_default=NOW, nullable=False),
        sa.CheckConstraint("process IN ('main', 'pool')", name="ck_worker_heartbeat_process"),
        sa.PrimaryKeyConstraint("name", "process", name="pk_worker_heartbeat"),
    )
    op.create_table(
        "blob_scrub",
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("checked_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("prefix", name="pk_blob_scrub"),
    )
    op.create_table(
        "corrupt_blob",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("found_at", MOMENT, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_corrupt_blob"),
    )
    op.create_table(
        "tally",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_tally"),
    )


def downgrade() -> None:
    for table in ("tally", "corrupt_blob", "blob_scrub", "worker_heartbeat"):
        op.drop_table(table)

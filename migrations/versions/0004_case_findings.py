"""What was understood of a labelled case, and the hash of its voxels."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("labelled_case", sa.Column("voxels_sha256", sa.Text(), nullable=True))
    empty = sa.text("'{}'::jsonb")
    op.add_column(
        "labelled_case", sa.Column("findings", JSONB(), server_default=empty, nullable=False)
    )
    op.create_unique_constraint(
        "uq_labelled_case_domain_id_voxels_sha256", "labelled_case", ["domain_id", "voxels_sha256"]
    )


def downgrade() -> None:
    op.drop_constraint("uq_labelled_case_domain_id_voxels_sha256", "labelled_case", type_="unique")
    op.drop_column("labelled_case", "findings")
    op.drop_column("labelled_case", "voxels_sha256")

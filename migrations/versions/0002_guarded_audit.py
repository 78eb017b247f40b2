"""The audit trail cannot be emptied, its newest hash is anchored; first keys are marked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# SECURITY DEFINER: who adds an event can do nothing else to the anchor. The tables are named
# by the schema of the event's own, so that no temporary table can stand in for them.
FUNCTIONS = (
    """
CREATE FUNCTION anchor_event() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format(
        'INSERT INTO %1$I.audit_anchor AS anchor (number, hash) VALUES ($1, $2)'
        ' ON CONFLICT (single) DO UPDATE SET number = $1, hash = $2 WHERE anchor.number < $1',
        TG_TABLE_SCHEMA
    ) USING NEW.number, NEW.hash;
    RETURN NULL;
END $$
""",
    """
CREATE FUNCTION refuse_step_back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.number <= OLD.number THEN
        RAISE EXCEPTION '% only moves forward', TG_TABLE_NAME;
    END IF;
    RETURN NEW;
END $$
""",
)

TRIGGERS = (
    "CREATE TRIGGER never_emptied BEFORE TRUNCATE ON audit_event"
    " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER anchored AFTER INSERT ON audit_event"
    " FOR EACH ROW EXECUTE FUNCTION anchor_event()",
    "CREATE TRIGGER never_emptied BEFORE TRUNCATE ON audit_anchor"
    " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER kept BEFORE DELETE ON audit_anchor"
    " FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER forward BEFORE UPDATE ON audit_anchor"
    " FOR EACH ROW EXECUTE FUNCTION refuse_step_back()",
)


def upgrade() -> None:
    op.create_table(
        "audit_anchor",
        sa.Column("single", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.CheckConstraint("single", name="ck_audit_anchor_single"),
        sa.PrimaryKeyConstraint("single", name="pk_audit_anchor"),
    )
    op.execute(
        "INSERT INTO audit_anchor (number, hash)"
        " SELECT number, hash FROM audit_event ORDER BY number DESC LIMIT 1"
    )
    for statement in (*FUNCTIONS, *TRIGGERS):
        op.execute(statement)
    op.execute("REVOKE ALL ON FUNCTION anchor_event() FROM PUBLIC")
    op.add_column(
        "api_key",
        sa.Column("bootstrap", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.execute("UPDATE api_key SET bootstrap = true WHERE name = 'first admin' AND role = 'admin'")


def downgrade() -> None:
    op.drop_column("api_key", "bootstrap")
    op.execute("DROP TRIGGER anchored ON audit_event")
    op.execute("DROP TRIGGER never_emptied ON audit_event")
    op.drop_table("audit_anchor")
    op.execute("DROP FUNCTION anchor_event")
    op.execute("DROP FUNCTION refuse_step_back")

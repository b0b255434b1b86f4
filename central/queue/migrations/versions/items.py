"""The first step: the table of items."""

import sqlalchemy as sa
from alembic import op

revision = "items"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "queue_items",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("settled", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("record", sa.LargeBinary),
        sa.Column("label", sa.String(64)),
        sa.Column("confidence", sa.Float),
        sa.Column("source", sa.String(64)),
        sa.Column("gateway", sa.String(64)),
        sa.Column("gravity", sa.Integer, nullable=False),
        sa.Column("waiting_since_ms", sa.BigInteger, nullable=False),
        sa.Column("changed_at_ms", sa.BigInteger, nullable=False),
        sa.Column("claimed_by", sa.Text),
        sa.Column("claimed_until_ms", sa.BigInteger),
        sa.Column("answer", sa.String(64)),
        sa.Column("answered_by", sa.Text),
        sa.Column("answered_at_ms", sa.BigInteger),
        sa.Column("note", sa.Text),
        sa.Column("answer_revision", sa.BigInteger),
        sa.Column("published_at_ms", sa.BigInteger),
        sa.Column("unpublishable", sa.Text),
    )
    op.create_index("queue_items_order", "queue_items", ["state", sa.text("gravity DESC"), "waiting_since_ms"])
    to_publish = sa.text("answered_at_ms IS NOT NULL AND published_at_ms IS NULL AND unpublishable IS NULL")
    op.create_index(
        "queue_items_to_publish",
        "queue_items",
        ["answered_at_ms"],
        sqlite_where=to_publish,
        postgresql_where=to_publish,
    )
    superseded = sa.text("state = 'superseded'")
    op.create_index(
        "queue_items_superseded",
        "queue_items",
        ["changed_at_ms"],
        sqlite_where=superseded,
        postgresql_where=superseded,
    )

"""The table behind the queue: what waits, who looks at it, what was answered, and whether that was told.

A row is two registers that only rise, so that deliveries may come in any order and any number of times: `revision` is
that of the highest record that asks for a person, `settled` that of the highest verdict that needs none. The item waits
while the first is not below the second. A person's answer ends that for good.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.engine import Dialect

VERSION_TABLE = "queue_version"
"""Alembic's own, by a name of ours: the database may be shared with others who use Alembic."""

NONE = -1
"""As a revision: there was none yet."""


class Words(TypeDecorator[str]):
    r"""Text of strangers, which may hold NUL, as PostgreSQL's may not: that is kept as `\0`, and `\` as `\\`."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - the same for all
        if value is None:
            return None
        whole = value.encode("utf-8", "replace").decode()  # arguments of a command may hold half a character
        return whole.replace("\\", "\\\\").replace("\0", "\\0")

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - likewise
        return None if value is None else "\\".join(part.replace("\\0", "\0") for part in value.split("\\\\"))


METADATA = MetaData()
ITEMS = Table(
    "queue_items",
    METADATA,
    Column("id", Words, primary_key=True),  # of the event, or of the incident
    Column("kind", String(16), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("settled", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),  # waiting, superseded or answered; who holds it is said below
    Column("record", LargeBinary),  # the verdict or incident, as it came; none where only a settling verdict came
    Column("label", String(64)),
    Column("confidence", Float),
    Column("source", String(64)),
    Column("gateway", String(64)),
    Column("gravity", Integer, nullable=False),  # the label's place among the task's, the mildest first
    Column("waiting_since_ms", BigInteger, nullable=False),
    Column("changed_at_ms", BigInteger, nullable=False),
    Column("claimed_by", Words),
    Column("claimed_until_ms", BigInteger),
    Column("answer", String(64)),
    Column("answered_by", Words),
    Column("answered_at_ms", BigInteger),
    Column("note", Words),
    Column("answer_revision", BigInteger),
    Column("published_at_ms", BigInteger),
    Column("unpublishable", Words),  # why Kafka will never take the answer
)
Index("queue_items_order", ITEMS.c.state, ITEMS.c.gravity.desc(), ITEMS.c.waiting_since_ms)
TO_PUBLISH = ITEMS.c.answered_at_ms.is_not(None) & ITEMS.c.published_at_ms.is_(None) & ITEMS.c.unpublishable.is_(None)
Index("queue_items_to_publish", ITEMS.c.answered_at_ms, sqlite_where=TO_PUBLISH, postgresql_where=TO_PUBLISH)
_SUPERSEDED = ITEMS.c.state == text("'superseded'")
Index("queue_items_superseded", ITEMS.c.changed_at_ms, sqlite_where=_SUPERSEDED, postgresql_where=_SUPERSEDED)

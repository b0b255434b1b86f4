"""What Alembic runs: the steps that the database lacks, over the connection that it was handed."""

from alembic import context

from central.queue.schema import METADATA, VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"], target_metadata=METADATA, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()

"""Run the migrations on the connection that `database.upgrade` hands over, in its transaction."""

from alembic import context

from crossfade.stores.engine import VERSION_TABLE
from crossfade.stores.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()

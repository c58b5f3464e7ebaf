"""Run by Alembic, inside the transaction of the connection that it is given; never imported.

Logging stays as the program has set it. There is no offline mode and no way down: a database newer than the program
is refused, and the way back is a backup.
"""

from alembic import context

from vivavoce.stores.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()

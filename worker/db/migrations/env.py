"""Runs the migrations on the connection that `worker.db.migrate` holds the lock on."""

from __future__ import annotations

from alembic import context

import worker.accounts.models
import worker.events.models
import worker.joblogs.models
import worker.jobs.models
import worker.process.models
import worker.schedules.models
import worker.webhooks.models  # noqa: F401 - importing the models fills the metadata
from worker.db.base import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    transactional_ddl=True,
    compare_type=False,
)
context.run_migrations()

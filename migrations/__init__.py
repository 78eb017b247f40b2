"""The schema's history, for Alembic; `normbank.storage.database.migrate` runs it."""

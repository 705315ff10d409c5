"""The Django application of groups in PostgreSQL, for their tables: see `backends/postgres/`."""

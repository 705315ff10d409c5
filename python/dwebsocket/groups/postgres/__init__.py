"""The Django application of groups in PostgreSQL: its tables. The backend is in `backends/postgres/`."""

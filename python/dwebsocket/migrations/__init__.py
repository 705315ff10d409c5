"""The database's part of the package: one table, on PostgreSQL only."""

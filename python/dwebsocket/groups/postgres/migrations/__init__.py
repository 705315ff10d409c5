"""The tables of this backend, on PostgreSQL only."""

"""A site of several tenants, each in a schema of PostgreSQL, by django-tenants."""

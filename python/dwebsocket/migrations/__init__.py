"""The database's part of the package: permissions, and no table."""

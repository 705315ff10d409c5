"""The tables that all tenants share: the tenants themselves."""

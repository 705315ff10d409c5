"""The tenants and their addresses."""

from django_tenants.models import DomainMixin, TenantMixin


class Tenant(TenantMixin):
    """A tenant; to save one makes its schema."""

    auto_create_schema = True


class Domain(DomainMixin):
    """A name in the Host of requests."""

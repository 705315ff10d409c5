"""
Ready-made for django-tenants: the values of two settings.

``WEBSOCKET_CONTEXT = "dwebsocket.tenants.context"`` has a connection's code work in the schema of
its tenant, and ``WEBSOCKET_REALM = "dwebsocket.tenants.realm"`` keeps the users of schemas apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import connections

from dwebsocket.api.base import own_websocket
from dwebsocket.compat.asyncio import running_loop

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from django.http import HttpRequest

__all__ = ["context", "realm"]


def context(request: HttpRequest) -> AbstractContextManager[Any]:
    """
    Returns a context manager in which this thread works in the schema of a request's tenant.

    Args:
        request: One that has passed a middleware of django-tenants, which sets its ``tenant``.
            Without a tenant it is the public schema.
    """
    from django_tenants.utils import get_public_schema_name, schema_context, tenant_context

    tenant = getattr(request, "tenant", None)
    found: AbstractContextManager[Any] = (
        schema_context(get_public_schema_name()) if tenant is None else tenant_context(tenant)
    )
    return found


def realm(request: HttpRequest | None) -> str | None:
    """
    Returns the name of the schema that has a request's user, or a user of the code that runs.

    Where no tenant has a table of users it is always that of the public schema.

    Args:
        request: As for :func:`context`. None asks for the schema of this thread; in an event loop
            for that of the connection whose code runs.

    Returns:
        None in an event loop outside of connections: there the tenant is not known.
    """
    from django_tenants.utils import get_public_schema_name, get_tenant_database_alias

    public: str = get_public_schema_name()
    if not _tenants_have_users():
        return public
    if request is not None:
        tenant = getattr(request, "tenant", None)
        return public if tenant is None else str(tenant.schema_name)
    if running_loop() is not None:
        # The loop's thread has no tenant, or that of any task.
        websocket = own_websocket.get()
        return None if websocket is None else websocket._realm
    found: Any = connections[get_tenant_database_alias()]
    return str(found.schema_name)


def _tenants_have_users() -> bool:
    from django.contrib.auth import get_user_model
    from django_tenants.routers import TenantSyncRouter
    from django_tenants.utils import get_public_schema_name, get_tenant_types

    if types := get_tenant_types():
        public = get_public_schema_name()
        listed = [types[each]["APPS"] for each in types if each != public]
    else:
        listed = [settings.TENANT_APPS]
    label = get_user_model()._meta.app_label
    return any(TenantSyncRouter().app_in_list(label, each) for each in listed)

"""The view of metrics, for the project's URLs: ``path("metrics", metrics)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from dwebsocket import conf
from dwebsocket.exceptions import GroupUnavailable

if TYPE_CHECKING:
    from django.http import HttpRequest

__all__ = ["metrics"]

_FORBIDDEN = (
    "Metrics need the header 'Authorization: Bearer TOKEN' with the WEBSOCKET_METRICS_TOKEN, or a "
    "user of the staff with the permission dwebsocket.view_websockets.\n"
)


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """
    Returns the metrics of all processes of the site, in the format that a scraper asks for.

    For requests with ``Authorization: Bearer …`` and the ``WEBSOCKET_METRICS_TOKEN``, and for users
    of the staff with the permission ``dwebsocket.view_websockets``; all others get 403. 503 while
    the default backend of groups cannot be reached.

    Raises:
        ImproperlyConfigured: ``prometheus-client`` is not installed.
    """
    if not _may_read(request):
        return HttpResponse(_FORBIDDEN, status=403, content_type="text/plain")
    try:
        # The package is optional.
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        from dwebsocket.operations.prometheus import SiteCollector
    except ImportError as error:
        raise ImproperlyConfigured(
            "metrics need the package prometheus-client: pip install dwebsocket2[prometheus]"
        ) from error
    registry = CollectorRegistry()
    registry.register(SiteCollector())
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    try:
        return HttpResponse(encode(registry), content_type=content_type)
    except GroupUnavailable as error:
        return HttpResponse(f"{error}\n", status=503, content_type="text/plain")


# For LoginRequiredMiddleware, as by `login_not_required`, since Django 5.1: a scraper has no login.
metrics.login_required = False  # type: ignore[attr-defined]


def _may_read(request: HttpRequest) -> bool:
    token: str = conf.get("METRICS_TOKEN")
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    if token and kind.lower() == "bearer" and constant_time_compare(given.strip(), token):
        return True
    user = getattr(request, "user", None)
    if user is None or not (user.is_active and getattr(user, "is_staff", False)):
        return False
    return bool(user.has_perm("dwebsocket.view_websockets"))

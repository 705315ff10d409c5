"""The views of the page: what it shows, and closing WebSockets."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import BadRequest, ImproperlyConfigured, PermissionDenied
from django.http import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.models import OpenWebSocket
from dwebsocket.operations import listing, series, survey
from dwebsocket.operations.admin_page import live, tables
from dwebsocket.request import worlds
from dwebsocket.users import announcements

if TYPE_CHECKING:
    from django.contrib.admin import AdminSite
    from django.http import HttpRequest
    from django.http.response import HttpResponse
    from django.urls import URLPattern

may_view = live.may_view

#: The close code and reason that clients get.
CLOSED = (1008, "closed by an administrator")
# The index of the admin links to a model by this name.
_NAME = "dwebsocket_openwebsocket_changelist"


def urls(site: AdminSite) -> list[URLPattern]:
    """Returns the patterns of the page in an admin site."""
    kwargs = {"site": site}
    return [
        path("websockets/", site.admin_view(show), kwargs, name=_NAME),
        path("websockets/close/", site.admin_view(close), kwargs, name="dwebsocket_close"),
        # A client of a WebSocket gets 403 and not the log-in page.
        path("websockets/live/", live.Live.as_view(), kwargs, name="dwebsocket_live"),
    ]


@require_GET
def show(request: HttpRequest, site: AdminSite) -> HttpResponse:
    """Shows the page."""
    if not may_view(site, request):
        raise PermissionDenied
    asked = request.GET
    number = tables.page_number(asked.get("p", ""))
    sort = asked.get("o", "age")
    query = listing.Query(
        text=asked.get("q", "").strip(),
        view=asked.get("view", ""),
        user=asked.get("user", ""),
        address=asked.get("address", ""),
        transport=asked.get("transport", ""),
        sort=sort if sort.lstrip("-") in listing.SORTS else "age",
        first=number * tables.PER_PAGE,
        realm=worlds.realm_of(request),
    )
    if query.text:
        query.users = tables.users_named(query.text)
    since = series.slot_now() - series.KEPT
    problem = ""
    parts: list[Any] = []
    missing = 0
    try:
        parts, missing = survey.ask("page", query=asdict(query), since=since)
    except (GroupUnavailable, ImproperlyConfigured) as error:
        problem = str(error)
    context = {
        **site.each_context(request),
        "title": _("WebSockets"),
        "opts": OpenWebSocket._meta,
        "problem": problem,
        "is_on": survey.is_on(),
        "may_close": may_close(site, request),
        "live_url": reverse(f"{site.name}:dwebsocket_live"),
        "close_url": reverse(f"{site.name}:dwebsocket_close"),
        **tables.context(parts, missing, query, number, asked),
    }
    response = TemplateResponse(request, "admin/dwebsocket/websockets.html", context)
    response["Cache-Control"] = "no-store"
    return response


@require_POST
def close(request: HttpRequest, site: AdminSite) -> HttpResponse:
    """Closes one WebSocket, or those of a user."""
    if not may_close(site, request):
        raise PermissionDenied
    key, user = request.POST.get("key", ""), request.POST.get("user", "")
    if "\0" in key + user:
        # PostgreSQL stores no such text in the admin's log.
        raise BadRequest("no WebSocket and no user has a NUL character in its key")
    code, reason = CLOSED
    realm = worlds.realm_of(request)
    try:
        if user:
            named = worlds.user_key(user, realm)
            counts, missing = survey.ask("close_user", user=named, code=code, reason=reason)
            # Also in processes that do not listen.
            announcements.close_user(named, code, reason)
            what = f"user {user}"
        else:
            counts, missing = survey.ask("close", key=key, code=code, reason=reason, realm=realm)
            what = f"WebSocket {key}"
    except GroupUnavailable as error:
        messages.error(request, _("Nothing was closed: %(error)s.") % {"error": error})
        return _back(request, site)
    closed = sum(counts)
    LogEntry.objects.create(
        user_id=request.user.pk,
        content_type_id=ContentType.objects.get_for_model(OpenWebSocket).pk,
        object_id=user or key,
        object_repr=what[:200],
        action_flag=DELETION,
        change_message=f"Closed {closed} WebSockets with {code}.",
    )
    if missing:
        told = _("%(closed)d closed; %(missing)d processes did not answer.")
        messages.warning(request, told % {"closed": closed, "missing": missing})
    elif closed:
        messages.success(request, _("%(closed)d closed.") % {"closed": closed})
    else:
        messages.info(request, _("It was closed already."))
    return _back(request, site)


def may_close(site: AdminSite, request: HttpRequest) -> bool:
    """Whether a user may close WebSockets, and see them."""
    return may_view(site, request) and live.has_right(site, request, "close")


def _back(request: HttpRequest, site: AdminSite) -> HttpResponse:
    """Returns a redirect to where the table was."""
    page = reverse(f"{site.name}:{_NAME}")
    wanted = request.POST.get("next", "")
    is_own = wanted.startswith("?") and url_has_allowed_host_and_scheme(page + wanted, None)
    return HttpResponseRedirect(page + wanted if is_own else page)

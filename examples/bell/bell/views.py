"""A page with a bell, and its WebSocket."""

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from bell.models import Notification
from bell.notifications import notify, read_all, unread
from dwebsocket import WebSocketRequest, require_websocket


class SignedIn(WebSocketRequest):
    """The request of a view behind `login_required`, for the annotations."""

    user: User  # pyright: ignore[reportIncompatibleVariableOverride]


def page(request: SignedIn) -> HttpResponse:
    """The page. It has a bell for those who have signed in."""
    if request.user.is_anonymous:
        return render(request, "bell/page.html")
    latest = Notification.objects.filter(user=request.user).order_by("-pk")[:10]
    return render(request, "bell/page.html", {"latest": latest, "unread": unread(request.user)})


@login_required
@require_websocket(text_type=str)
def socket(request: SignedIn) -> None:
    """The number as it is now; later ones come by ``user(…)``. "read" comes from the page."""
    shown = None
    # A notification may overtake the number that was read before it: the next look counts it.
    while (now := unread(request.user)) != shown:
        request.websocket.send_json({"unread": now})
        shown = now
    for message in request.websocket:
        if message == "read":
            read_all(request.user)


@login_required
@require_POST
def send(request: SignedIn) -> HttpResponse:
    """Notifies the user of this very page, as any other part of a project would."""
    notify(request.user, request.POST.get("text", "")[:200] or "Hello!")
    return redirect("page")

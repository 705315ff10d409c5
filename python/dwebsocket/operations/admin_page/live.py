"""The WebSocket that moves the page's charts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied

from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.handler import WebSocketHandler
from dwebsocket.operations import series, survey

if TYPE_CHECKING:
    from django.contrib.admin import AdminSite
    from django.http import HttpRequest

# Ticks after which the permission is looked up again: half a minute.
_TICKS_A_LOOK = 15
# Slots before the last one that are sent again.
_SLOTS_AGAIN = 3
_NO_RIGHT = (1008, "no permission any more")


def may_view(site: AdminSite, request: HttpRequest) -> bool:
    """Whether a user may see the open WebSockets."""
    return has_right(site, request, "view")


def has_right(site: AdminSite, request: HttpRequest, verb: str) -> bool:
    """Whether a user has one of the page's permissions, and may use the admin site at all."""
    user: Any = request.user
    return site.has_permission(request) and bool(user.has_perm(f"dwebsocket.{verb}_websockets"))


class Live(WebSocketHandler):
    """Sends each slot's sample of all processes. Ends when the user may not see it any more."""

    every = series.SLOT_S
    # Clients send nothing here: their messages are ignored, and large ones are refused.
    max_message_size = 1024

    def connect(self) -> None:
        """Refuses users without the permission, with 403."""
        if not may_view(self.kwargs["site"], self.request):
            raise PermissionDenied
        self.ticks = 0

    def tick(self) -> None:
        """Sends the samples of the last slots."""
        self.ticks += 1
        if self.ticks % _TICKS_A_LOOK == 0 and not self._may_still_view():
            self.websocket.close(*_NO_RIGHT)
            return
        last = series.last_complete()
        try:
            # The samples of busy processes may be late: the page replaces what it has of a slot.
            parts, missing = survey.ask("series", since=last - _SLOTS_AGAIN)
        except GroupUnavailable as error:
            self.websocket.send_json({"problem": str(error)})
            return
        samples = [each for each in series.total(parts) if each[0] <= last]
        answered = len(parts)
        self.websocket.send_json(
            {"slot": last, "samples": samples, "processes": answered, "missing": missing}
        )

    def _may_still_view(self) -> bool:
        found: Any = get_user_model()._default_manager.filter(pk=self.request.user.pk).first()
        if found is None:
            return False
        # A fresh object: the old one remembers its permissions.
        self.request.user = found
        return may_view(self.kwargs["site"], self.request)

"""
Toasts: short messages on all open pages of a user, from any process.

As ``django.contrib.messages``, but they come at once, and also from what is no request: a task, a
signal, a management command.
"""

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.http import HttpRequest

from dwebsocket import Group, WebSocketRequest, group, require_websocket

Person = AbstractBaseUser | AnonymousUser


def toasts_of(user: Person) -> Group:
    """Return the group of a user's toasts. HISTORY in the settings keeps them for a minute."""
    return group(f"toasts-{user.pk}")


def toast(user: Person, text: str, level: str = "info") -> None:
    """Show a text on the pages of a user; in a transaction when it commits."""
    toasts_of(user).send_json({"level": level, "text": text}, on_commit=True)


@require_websocket(groups=["toasts-{user.pk}"], resume=True)
async def toasts(request: WebSocketRequest) -> None:
    """The WebSocket of all pages: it has nothing to do, and occupies no thread."""
    async for _ in request.websocket:
        pass


def for_templates(request: HttpRequest) -> dict[str, Group]:
    """Context processor: the group of the page's user."""
    return {"toasts": toasts_of(request.user)} if request.user.is_authenticated else {}

"""``{% load dwebsocket %}``: the addresses of WebSockets, and the positions of groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import template
from django.urls import reverse

from dwebsocket.groups import Group, group

if TYPE_CHECKING:
    from django.template.context import Context

register = template.Library()


@register.simple_tag(takes_context=True)
def websocket_url(context: Context, view_name: str, *args: Any, **kwargs: Any) -> str:
    """
    Gives the address of a view for ``new WebSocket(…)``: ``{% websocket_url 'chat' room=room %}``.

    Args:
        context: The template's. With its request the address is whole: ``wss://`` where the page
            is encrypted, else ``ws://``. Without one it is a path.
        view_name: As for ``{% url %}``.
        *args: The URL's positional arguments.
        **kwargs: Its named ones.

    Raises:
        NoReverseMatch: There is no such view.
    """
    request = context.get("request")
    current = getattr(getattr(request, "resolver_match", None), "namespace", None)
    path = reverse(view_name, args=args or None, kwargs=kwargs or None, current_app=current)
    if request is None:
        return path
    scheme = "wss" if request.is_secure() else "ws"
    return f"{scheme}://{request.get_host()}{path}"


@register.filter
def position(value: Group | str) -> str:
    """
    Gives the position of a group's newest message: ``{{ group|position }}``.

    A page that shows what was said joins from there, without a gap.

    Args:
        value: A group, or its name.

    Raises:
        UsageError: The group has no history.
        GroupUnavailable: Its backend cannot be reached.
    """
    return (value if isinstance(value, Group) else group(value)).position()

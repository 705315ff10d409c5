"""``{% load dwebsocket %}``: the addresses of WebSockets, and the positions of groups."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from django import template
from django.urls import reverse

if TYPE_CHECKING:
    from django.template.context import Context

    from dwebsocket.groups import Group, History

register = template.Library()


# What a URL may have and HTML escapes: a script would get `&amp;`. Servers read both alike.
_ENCODED = str.maketrans({"&": "%26", "'": "%27"})


@register.simple_tag(takes_context=True)
def websocket_url(context: Context, view_name: str, *args: Any, **kwargs: Any) -> str:
    """
    Returns the address of a view for ``new WebSocket(…)``: ``{% websocket_url 'chat' room=room
    %}``.

    It has no character that HTML escapes: it is the same in an attribute and in a script.
    ``{% websocket_url 'chat' as address %}`` puts it into a variable.

    Args:
        context: The template's. With its request the address is whole: ``wss://`` where the page
            is encrypted, else ``ws://``, and the page's host, both as ``request.is_secure()`` and
            ``request.get_host()`` know them. Without one it is a path.
        view_name: As for ``{% url %}``; namespaces, too.
        *args: The URL's positional arguments.
        **kwargs: Its named ones.

    Raises:
        NoReverseMatch: There is no such view.
    """
    # Only the context processor puts it into the variables.
    request = getattr(context, "request", None) or context.get("request")
    # As `{% url %}`: the page's own instance of an application.
    match = getattr(request, "resolver_match", None)
    current_app = getattr(request, "current_app", getattr(match, "namespace", None))
    path = reverse(view_name, args=args or None, kwargs=kwargs or None, current_app=current_app)
    path = path.translate(_ENCODED)
    if request is None:
        return path
    scheme = "wss" if request.is_secure() else "ws"
    return f"{scheme}://{request.get_host()}{path}"


@register.filter
def position(value: Group | History | str) -> str:
    """
    Returns the position from which a page joins: ``{{ said|position }}``, ``{{ group|position }}``.

    The position of a history is its end: a page that shows it joins there, so nothing is missed
    and nothing comes twice. The one of a group is its newest message, at the moment of the call.

    Args:
        value: What ``history()`` has given; or a group, or its name.

    Raises:
        UsageError: The group has no history.
        GroupUnavailable: Its backend cannot be reached.
        TypeError, ValueError: It is nothing of these, such as a variable that does not exist.
    """
    # Some versions of Django import this module in each command.
    groups = import_module("dwebsocket.groups")
    text: str
    if isinstance(value, groups.History):
        text = value.position
    else:
        text = (value if isinstance(value, groups.Group) else groups.group(value)).position()
    return text

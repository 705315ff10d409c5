"""
What an open WebSocket keeps of its request, for hours perhaps and ten thousand times.

To its view the request is what it was. But what belongs to a response that is out is let go, what
Django makes on demand is made when it is asked for again, and of things that are equal and never
change, such as the headers that every browser sends, all connections hold the same one.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from dwebsocket.compat.django import forget_body, parts_of_route

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.urls import ResolverMatch

# What hardly two clients have in common, or should not be kept beyond its connection.
_OWN = frozenset(
    {"HTTP_SEC_WEBSOCKET_KEY", "HTTP_COOKIE", "HTTP_AUTHORIZATION", "QUERY_STRING", "REMOTE_PORT"}
    | {"RAW_URI", "REQUEST_URI"}
)

# The most strings that are kept for the next requests, and the longest one.
_MOST_KEPT = 1024
_LONGEST_KEPT = 256
# Each string of environs that stands for all equal ones, as the key and as its value.
_strings: dict[str, str] = {}

# One match for each route that has an open WebSocket.
_matches: WeakValueDictionary[tuple[Any, ...], ResolverMatch] = WeakValueDictionary()


class _NoBody(io.RawIOBase):
    """A stream at its end. Nothing can change it, so one is enough."""

    def readable(self) -> bool:
        """As it is with bodies."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads nothing."""
        return 0

    def write(self, data: Any) -> int:
        """
        Writes nothing.

        Raises:
            OSError: Always.
        """
        raise io.UnsupportedOperation("nothing can be written to the body of a request")

    def close(self) -> None:
        """Does nothing: others have it, too."""


_NO_BODY = _NoBody()


def keep(request: HttpRequest) -> None:
    """
    Parts a request from its server and its handshake; to be called when its WebSocket opens.

    Afterwards a WSGI request has an environ of its own, without a body. May change the request's
    attributes, not what they mean.
    """
    # Made again of META when it is asked for.
    request.__dict__.pop("headers", None)
    if request.resolver_match is not None:
        request.resolver_match = _lean(request.resolver_match)
    if hasattr(request, "environ"):
        # uWSGI empties its own when the response is done.
        request.environ = request.META = environ = _copy(request.META)
        path = environ.get("PATH_INFO")
        if request.path_info == path:
            request.path_info = path
        if request.path == path:
            request.path = path
        # It belongs to a response that is out, and would keep all that the server knew of it.
        environ.pop("wsgi.early_hints", None)
        # The server's reader is at its end; the view's request has no body.
        environ["wsgi.input"] = _NO_BODY
        forget_body(request, _NO_BODY)


def _copy(environ: dict[str, Any]) -> dict[str, Any]:
    """Gives a copy of a WSGI request's environ that shares equal strings with other copies."""
    if len(_strings) > _MOST_KEPT:
        _strings.clear()
    share = _strings.setdefault
    copy = {}
    for name, value in environ.items():
        if len(name) <= _LONGEST_KEPT:
            name = share(name, name)
        # A subclass of `str` could be equal to what it is not.
        if type(value) is str and len(value) <= _LONGEST_KEPT and name not in _OWN:
            value = share(value, value)
        copy[name] = value
    return copy


def _lean(match: ResolverMatch) -> ResolverMatch:
    """Gives an equal match that shares what it can with those of other connections."""
    # The function stays alive as long as a match of it is known: until then nothing has its id.
    key = (id(match.func), match.route, match.view_name, *match.namespaces)
    known = _matches.setdefault(key, match)
    if not (match.args or match.kwargs or known.args or known.kwargs):
        return known
    for name in parts_of_route(match):
        if getattr(known, name) == (own := getattr(match, name)) and own is not None:
            setattr(match, name, getattr(known, name))
    return match

"""
The part of its request that an open WebSocket keeps, perhaps for hours and ten thousand times.

For the view the request stays the same. Objects that belong to the response, which has been sent,
are dropped; objects that Django makes on demand are made again when they are read; and equal
immutable objects, such as the headers that every browser sends, are shared by all connections.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from django.core.signals import request_started

from dwebsocket.compat.django import forget_body, parts_of_route
from dwebsocket.request import ENVIRON_KEY, HANDSHAKE_KEY

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.urls import ResolverMatch

# Headers whose values few clients share, or which must not be kept longer than their connection.
_OWN = frozenset(
    {"HTTP_SEC_WEBSOCKET_KEY", "HTTP_COOKIE", "HTTP_AUTHORIZATION", "QUERY_STRING", "REMOTE_PORT"}
    | {"RAW_URI", "REQUEST_URI"}
)

# How many strings are kept for the next requests, and the length of the longest.
_MOST_KEPT = 1024
_LONGEST_KEPT = 256
# The shared strings of environs, each as the key and as its value.
_strings: dict[str, str] = {}

# One match for each route that has an open WebSocket.
_matches: WeakValueDictionary[tuple[Any, ...], ResolverMatch] = WeakValueDictionary()


class _NoBody(io.RawIOBase):
    """A stream at its end. Nothing can change it, so one is enough."""

    def readable(self) -> bool:
        """True, as for any body."""
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
        """Does nothing: other requests share this object."""


_NO_BODY = _NoBody()


def _note_environ(environ: dict[str, Any] | None = None, **_: Any) -> None:
    """Keeps what a server says of a handshake: middleware may change it, and meets it once more."""
    if environ is not None and "HTTP_SEC_WEBSOCKET_KEY" in environ:
        environ[ENVIRON_KEY] = {
            name: value for name, value in environ.items() if type(value) is str
        }


request_started.connect(_note_environ, dispatch_uid="dwebsocket.request")


def keep(request: HttpRequest, *, moves: bool = False) -> None:
    """
    Drops a request's references to its server; to be called when its WebSocket opens.

    Afterwards a WSGI request has an environ of its own, without a body. Attributes of the request
    may become other objects with the same meaning.

    Args:
        request: The request.
        moves: Whether another process may go on with its connection, and need what middleware has
            changed.
    """
    # Django makes it again from META when it is read.
    request.__dict__.pop("headers", None)
    if request.resolver_match is not None:
        request.resolver_match = _lean(request.resolver_match)
    if hasattr(request, "environ"):
        # uWSGI empties its environ when the response is done.
        request.environ = request.META = environ = _copy(request.META)
        path = environ.get("PATH_INFO")
        if request.path_info == path:
            request.path_info = path
        if request.path == path:
            request.path = path
        if request.method == environ.get("REQUEST_METHOD"):
            request.method = environ["REQUEST_METHOD"]
        # It belongs to the response, which has been sent, and refers to the server's objects.
        environ.pop("wsgi.early_hints", None)
        environ.pop(HANDSHAKE_KEY, None)
        before = environ.pop(ENVIRON_KEY, None)
        if moves and before is not None and (changed := _changes(before, environ)):
            environ[ENVIRON_KEY] = changed
        # The server's reader is at its end; the view's request has no body.
        environ["wsgi.input"] = _NO_BODY
        forget_body(request, _NO_BODY)


def _changes(before: dict[str, str], environ: dict[str, Any]) -> dict[str, str | None]:
    """Returns the texts that middleware has changed, as they were: None for those that it added."""
    changed: dict[str, str | None] = {
        name: None for name, value in environ.items() if type(value) is str and name not in before
    }
    changed.update({name: value for name, value in before.items() if environ.get(name) != value})
    return changed


def _copy(environ: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy of a WSGI request's environ that shares equal strings with other copies."""
    if len(_strings) > _MOST_KEPT:
        _strings.clear()
    share = _strings.setdefault
    copy = {}
    for name, value in environ.items():
        if len(name) <= _LONGEST_KEPT:
            name = share(name, name)
        # Not subclasses of `str`: one could be equal to another string and still differ from it.
        if type(value) is str and len(value) <= _LONGEST_KEPT and name not in _OWN:
            value = share(value, value)
        copy[name] = value
    return copy


def _lean(match: ResolverMatch) -> ResolverMatch:
    """Returns an equal match that shares what it can with those of other connections."""
    # A known match keeps its function alive, so no other function can have the same id meanwhile.
    key = (id(match.func), match.route, match.view_name, *match.namespaces)
    known = _matches.setdefault(key, match)
    if not (match.args or match.kwargs or known.args or known.kwargs):
        return known
    for name in parts_of_route(match):
        if getattr(known, name) == (own := getattr(match, name)) and own is not None:
            setattr(match, name, getattr(known, name))
    return match

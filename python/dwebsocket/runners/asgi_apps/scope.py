"""The scope of an ASGI application, from the request of its handshake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from dwebsocket.servers import protocol_of
from dwebsocket.servers.asgi import SCOPE_KEY, NativeHandshake, Served

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dwebsocket.typing import WebSocketRequest

    Scope = dict[str, Any]

# The version of the specification for WebSockets whose events an application may send.
_ASGI = {"version": "3.0", "spec_version": "2.3"}
_DENIAL_RESPONSE = "websocket.http.response"
# Headers that CGI, and so WSGI, keeps without a prefix.
_UNPREFIXED = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}
# Where servers put the target of the request as the client wrote it, if they keep it.
_TARGETS = ("RAW_URI", "REQUEST_URI")


def scope_of(
    request: WebSocketRequest, args: tuple[Any, ...], kwargs: Mapping[str, Any], path_remaining: str
) -> Scope:
    """
    Returns the scope that the ASGI specification and Channels describe, a new one for each request.

    Under ASGI what the server's scope has besides is in it, too.

    Args:
        request: The handshake's, with all that middleware has added.
        args: The URL's positional arguments.
        kwargs: The URL's named arguments.
        path_remaining: The path that is left for routers of the application.
    """
    of_server = getattr(request, "scope", None)
    scope = _of_environ(request) if of_server is None else _of_server(of_server)
    scope.update(
        type="websocket",
        asgi=dict(_ASGI),
        scheme="wss" if request.is_secure() else "ws",
        path=request.path,
        root_path=request.META.get("SCRIPT_NAME") or "",
        path_remaining=path_remaining,
        subprotocols=list(request.websocket.offered_subprotocols),
        url_route={"args": args, "kwargs": dict(kwargs)},
        cookies=dict(request.COOKIES),
    )
    # Where their middleware is missing the application may have its own.
    for name in ("session", "user"):
        if hasattr(request, name):
            scope[name] = getattr(request, name)
    return scope


def _of_server(given: Mapping[str, Any]) -> Scope:
    scope = {name: given[name] for name in given if name not in ("method", SCOPE_KEY)}
    scope["headers"] = [(bytes(name), bytes(value)) for name, value in given.get("headers") or ()]
    scope["state"] = dict(given.get("state") or {})
    # Ours, in that of the server.
    scope["state"].pop(Served.KEY, None)
    query = given.get("query_string") or b""
    scope["query_string"] = query.encode() if isinstance(query, str) else query
    # Only Django's test client has handshakes that are requests.
    is_answered_by_us = given["type"] == "http" or isinstance(given.get(SCOPE_KEY), NativeHandshake)
    scope["extensions"] = dict(
        {_DENIAL_RESPONSE: {}} if is_answered_by_us else given.get("extensions") or {}
    )
    return scope


def _of_environ(request: WebSocketRequest) -> Scope:
    environ = request.META
    return {
        "http_version": protocol_of(environ).partition("/")[2] or "1.1",
        "raw_path": _raw_path(environ) or quote(request.path).encode(),
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "headers": _headers(environ),
        "client": _address(environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT")),
        "server": _address(environ.get("SERVER_NAME"), environ.get("SERVER_PORT")),
        "extensions": {_DENIAL_RESPONSE: {}},
        "state": {},
    }


def _raw_path(environ: Mapping[str, Any]) -> bytes:
    for name in _TARGETS:
        if target := str(environ.get(name) or ""):
            path = urlsplit(target).path if "://" in target else target.partition("?")[0]
            return path.encode("latin-1")
    return b""


def _headers(environ: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    found = []
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            header = name[5:].replace("_", "-").lower().encode("latin-1")
        elif name in _UNPREFIXED and value:
            header = _UNPREFIXED[name]
        else:
            continue
        found.append((header, str(value).encode("latin-1")))
    return found


def _address(host: str | None, port: object) -> tuple[str, int | None] | None:
    """Returns an address as scopes have it; None where there is none, as on Unix sockets."""
    if not host:
        return None
    number = str(port or "")
    return host, int(number) if number.isdecimal() else None

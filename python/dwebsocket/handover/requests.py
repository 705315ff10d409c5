"""
The request of a connection that moves, whatever kind of server each of the two processes has.

On its way it is the environ of WSGI: texts that stand for bytes, as a server has them.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http.cookie import parse_cookie

from dwebsocket.request import ENVIRON_KEY

if TYPE_CHECKING:
    from django.http import HttpRequest

    from dwebsocket.servers.hosts import Loop

# Texts that Django has decoded.
_DECODED: tuple[str, ...] = ("PATH_INFO", "SCRIPT_NAME")
_QUERY, _COOKIES = "QUERY_STRING", "HTTP_COOKIE"


def meta_of(request: HttpRequest) -> dict[str, str]:
    """Returns the texts of a request's environ, as they were before middleware."""
    own, decoded = request.META, _DECODED
    if (scope := request.__dict__.get("scope")) is not None:
        # One of an ASGI server.
        own, decoded = ASGIRequest(scope, io.BytesIO()).META, (*_DECODED, _QUERY)
    meta = {name: value for name, value in own.items() if type(value) is str}
    if scope is not None:
        meta["wsgi.url_scheme"] = scope.get("scheme", "http")
        if (port := own.get("REMOTE_PORT")) is not None:
            meta["REMOTE_PORT"] = str(port)
    meta.update({name: meta[name].encode().decode("latin-1") for name in decoded if name in meta})
    for name, value in own.get(ENVIRON_KEY, {}).items():
        if value is None:
            meta.pop(name, None)
        else:
            meta[name] = value
    if cookies := _with_session(meta.get(_COOKIES, ""), getattr(request, "session", None)):
        meta[_COOKIES] = cookies
    return meta


def _with_session(cookies: str, session: Any) -> str:
    """
    Returns cookies with the present key of a session.

    The handshake may have begun the session, or renewed it.
    """
    key, name = getattr(session, "session_key", None), settings.SESSION_COOKIE_NAME
    if not key or parse_cookie(cookies).get(name) == key:
        return cookies
    others = (each.strip() for each in cookies.split(";"))
    kept = [each for each in others if each and each.partition("=")[0].strip() != name]
    return "; ".join([*kept, f"{name}={key}"])


def environ_of(meta: dict[str, str]) -> dict[str, Any]:
    """Returns a whole environ."""
    return {
        **meta,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": meta.get("wsgi.url_scheme", "http"),
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


def scope_of(environ: dict[str, Any], server: Loop) -> dict[str, Any]:
    """Returns the scope of the request under an ASGI server."""
    path, root, query = (environ.get(name, "").encode("latin-1") for name in (*_DECODED, _QUERY))
    headers = [
        (name.removeprefix("HTTP_").replace("_", "-").lower().encode(), value.encode("latin-1"))
        for name, value in environ.items()
        if name.startswith("HTTP_") or name == "CONTENT_TYPE"
    ]
    address = environ.get("REMOTE_ADDR")
    own = environ.get("SERVER_NAME", "unknown"), int(environ.get("SERVER_PORT") or 0)
    return {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": environ["wsgi.url_scheme"],
        # Bytes that are no UTF-8 are replaced, as ASGI servers do.
        "root_path": root.decode(errors="replace"),
        "path": (root + path).decode(errors="replace"),
        "raw_path": root + path,
        "query_string": query,
        "headers": headers,
        "server": None if own == ("unknown", 0) else own,
        "client": (address, int(environ.get("REMOTE_PORT") or 0)) if address else None,
        "subprotocols": [],
        "state": dict(server.state),
        "extensions": {},
    }

"""
The question of ``manage.py websocket_doctor``, and its way through the project's middleware.

The question is a header, signed with the project's ``SECRET_KEY`` and valid for a minute.
Middleware refuses a request whose Host a proxy has changed, and redirects one whose TLS a proxy has
hidden. Such a request would not reach the view, and the report could name nothing else that the
proxy does wrong. So a question gets a Host that is allowed, or the scheme ``https``, and more
headers name the Host and the scheme that arrived. This opens nothing: any client may send that
Host, and may use TLS.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from django.conf import settings
from django.core import signing
from django.core.exceptions import DisallowedHost
from django.core.signals import request_started
from django.http import HttpRequest
from django.http.request import HttpHeaders

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER = "X-Websocket-Doctor"
#: The Host that arrived, where it is not allowed.
REFUSED_HOST = "HTTP_X_WEBSOCKET_DOCTOR_HOST"
#: The scheme that arrived, where ``SECURE_SSL_REDIRECT`` would redirect it.
REFUSED_SCHEME = "HTTP_X_WEBSOCKET_DOCTOR_SCHEME"
#: An address that no host has (RFC 5737), which the doctor claims in ``X-Forwarded-For``.
MADE_UP = "192.0.2.123"

# Seconds for which a question is valid, before and after its time: the two clocks may differ.
_VALID_S = 60
_ASKED = HttpHeaders.to_wsgi_name(HEADER)
_ASKED_IN_SCOPE = HEADER.lower().encode()


def question(host: str, path: str) -> str:
    """
    Returns the header's value that gets a report, for a minute.

    Args:
        host: The site's, as in the Host header. Another site does not answer, even if it has the
            same ``SECRET_KEY`` and the asked one forwards the question to it.
        path: The view's, percent-encoded or not.
    """
    return signer("question").sign(f"{int(time.time())} {place_of(host, unquote(path))}")


def asked_place(meta: Mapping[str, Any]) -> str | None:
    """Returns the :func:`place_of` a request's question, None if it has none that is valid."""
    if (asked := meta.get(_ASKED)) is None:
        return None
    try:
        moment, _, place = signer("question").unsign(asked).partition(" ")
    except signing.BadSignature:
        return None
    return place if abs(time.time() - int(moment)) <= _VALID_S else None


def place_of(host: str, path: str) -> str:
    """Returns the text that stands for a view in a question."""
    return f"{host.lower()}{quote(path)}"


def signer(purpose: str) -> signing.Signer:
    """Returns the signer for a purpose."""
    # Not at import: the key is a setting.
    return signing.Signer(salt=f"dwebsocket.operations.doctor.{purpose}")


def _on_request(
    *, environ: dict[str, Any] | None = None, scope: dict[str, Any] | None = None, **_: Any
) -> None:
    if environ is not None:
        if _ASKED in environ:
            _change(environ, environ.get("wsgi.url_scheme", "http"))
    elif scope is not None and any(name == _ASKED_IN_SCOPE for name, _ in scope["headers"]):
        _change_scope(scope)


def _change(meta: dict[str, Any], scheme: str) -> None:
    """Changes the Host and the scheme that middleware sees, for a valid question."""
    if (place := asked_place(meta)) is None:
        return
    if not _is_host_allowed(meta):
        name = "HTTP_X_FORWARDED_HOST" if settings.USE_X_FORWARDED_HOST else "HTTP_HOST"
        meta[REFUSED_HOST] = meta.pop(name, "") or meta.get("HTTP_HOST", "")
        meta.pop("HTTP_X_FORWARDED_HOST", None)
        meta["HTTP_HOST"] = place.partition("/")[0]
        if not _is_host_allowed(meta):
            known = (host.lstrip(".") for host in settings.ALLOWED_HOSTS if host != "*")
            meta["HTTP_HOST"] = next(known, "localhost")
    if settings.SECURE_SSL_REDIRECT:
        header, secure = settings.SECURE_PROXY_SSL_HEADER or ("", "")
        told = meta.get(header)
        if (scheme if told is None else told.partition(",")[0].strip()) not in ("https", secure):
            meta[REFUSED_SCHEME] = "http"
            meta.pop(header, None)
            meta["wsgi.url_scheme"] = "https"


def _is_host_allowed(meta: dict[str, Any]) -> bool:
    request = HttpRequest()
    # Where there is no Host, the server's own name would be taken.
    request.META = {"SERVER_NAME": "", "SERVER_PORT": "80", **meta}
    try:
        request.get_host()
    except DisallowedHost:
        return False
    return True


def _change_scope(scope: dict[str, Any]) -> None:
    headers = scope["headers"]
    if not isinstance(headers, list):
        # Only a list can be changed in place.
        return
    keys = [HttpHeaders.to_wsgi_name(name.decode("latin-1")) for name, _ in headers]
    before = {key: value.decode("latin-1") for key, (_, value) in zip(keys, headers, strict=True)}
    meta: dict[str, Any] = dict(before)
    _change(meta, scope.get("scheme", "http"))
    scope["scheme"] = meta.pop("wsgi.url_scheme", scope.get("scheme", "http"))
    if meta == before:
        return
    kept = [
        header for key, header in zip(keys, headers, strict=True) if before[key] == meta.get(key)
    ]
    new = [
        (str(HttpHeaders.parse_header_name(key)).lower().encode(), value.encode("latin-1"))
        for key, value in meta.items()
        if before.get(key) != value
    ]
    headers[:] = [*kept, *new]


request_started.connect(_on_request, dispatch_uid="dwebsocket.operations.doctor.site_question")

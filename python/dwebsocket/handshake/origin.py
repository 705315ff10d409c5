"""
Which pages may connect (RFC 6455 section 10.2).

Browsers let any page open a WebSocket to any site, cookies included; only the Origin header names
the page's site. The site itself is allowed, and the origins in ``CSRF_TRUSTED_ORIGINS`` and
``WEBSOCKET_ALLOWED_ORIGINS``. Clients that are no browsers send no Origin and may connect, unless
``WEBSOCKET_REQUIRE_ORIGIN`` is True.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpRequest

from dwebsocket import conf
from dwebsocket.compat.django import is_same_domain
from dwebsocket.request import transport_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LAST_PORT = 65535
# In host names: the characters that Django allows in Host, and the underscore, which DNS does not
# allow.
_SERIALISED = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::(0|[1-9][0-9]{0,4}))?", re.ASCII
)
# The size of the cache of known hosts, and the longest name in it. Hosts beyond that are checked
# each time: `ALLOWED_HOSTS` can hold patterns, so a site may have any number of hosts.
_MOST_KNOWN = 1024
_LONGEST_KNOWN = 260


def objection(
    request: HttpRequest,
    allowed: Iterable[str],
    *,
    required: bool = False,
    now: conf.Present | None = None,
) -> str | None:
    """
    Gives the reason why the request's Origin may not connect, None when it may.

    Args:
        request: A handshake. Its Host is checked by ``ALLOWED_HOSTS`` on the way.
        allowed: Origins that may connect besides the site's own, ``*.`` for subdomains, ``*`` for
            all, ``null`` for the opaque one.
        required: Whether a client without an Origin, which is no browser, may not.
        now: The result of :func:`dwebsocket.conf.present`, if the caller has it.

    Raises:
        django.core.exceptions.DisallowedHost: The Host header is not one of the site's.
    """
    host = _host_of(request, now or conf.present())
    own = f"{'https' if request.is_secure() else 'http'}://{host}".lower()
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None and transport_of(request) != "websocket":
        origin = _of_page(request.META, own)
    if origin is None:
        return "there is no Origin, and WEBSOCKET_REQUIRE_ORIGIN is on" if required else None
    # Strip only the blanks that HTTP allows around a value. Lower only ASCII: some other letters
    # become ASCII letters in lower case.
    origin = origin.strip(" \t")
    origin = origin.lower() if origin.isascii() else origin
    # Browsers write the origin in exactly this form, so compare strings first: that is faster.
    if may_connect(origin, own, (*allowed, *settings.CSRF_TRUSTED_ORIGINS)):
        return None
    hint = "add it to WEBSOCKET_ALLOWED_ORIGINS if it may connect"
    if _same(origin.replace("https://", "http://", 1), own):
        hint = "if a proxy ends TLS in front of Django, set SECURE_PROXY_SSL_HEADER"
    return f"Origin {origin!r} is not this site ({own}): {hint}"


def may_connect(origin: str, own: str, allowed: Iterable[str]) -> bool:
    """Whether pages of ``origin`` may connect to the site ``own``, both in lower case."""
    if origin == own or _same(origin, own):
        return True
    return any(_matches(origin, entry.lower()) for entry in allowed)


def _of_page(headers: Mapping[str, str], own: str) -> str | None:
    """Gives the origin of a page whose browser sends none, as with a GET to the page's own site."""
    site = headers.get("HTTP_SEC_FETCH_SITE")
    if site == "same-origin":
        return own
    if referer := headers.get("HTTP_REFERER"):
        scheme, _, rest = referer.partition("://")
        return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}"
    return "null" if site in ("same-site", "cross-site") else None


def _host_of(request: HttpRequest, now: conf.Present) -> str:
    """
    Gives the request's ``get_host()``, from a cache where that is possible.

    The call itself takes as long as judging the whole handshake.

    Raises:
        django.core.exceptions.DisallowedHost: The Host header is not one of the site's.
    """
    source, known = now
    names, hosts = known.get(_host_of, (None, None))
    # Tests, and Django's own setup for them, replace the list: then start a new cache.
    if names != source.ALLOWED_HOSTS:
        # A copy of the list or tuple, so that a change within it is seen.
        names, hosts = source.ALLOWED_HOSTS[:], None if source.USE_X_FORWARDED_HOST else {}
        known[_host_of] = names, hosts
    if hosts is None or type(request).get_host is not HttpRequest.get_host:
        return request.get_host()
    named = request.META.get("HTTP_HOST", "")
    host: str | None = hosts.get(named)
    if host is None:
        host = request.get_host()
        if 0 < len(named) <= _LONGEST_KNOWN and len(hosts) < _MOST_KNOWN:
            hosts[named] = host
    return host


def _parts(origin: str) -> tuple[str, str, int | None] | None:
    """
    Gives scheme, host and port of an origin in lower case, None for everything else.

    Only what RFC 6454 section 6.2 lets a browser write: ``scheme://host`` or ``scheme://host:port``.
    Parsers of URLs are more lenient, and differ on what they take for the host.
    """
    found = _SERIALISED.fullmatch(origin)
    if found is None:
        return None
    scheme, host, digits = found.groups()
    if host.startswith("["):
        try:
            IPv6Address(host[1:-1])
        except ValueError:
            return None
    port = _DEFAULT_PORTS.get(scheme) if digits is None else int(digits)
    return None if port is not None and port > _LAST_PORT else (scheme, host, port)


def _same(origin: str, other: str) -> bool:
    parts = _parts(origin)
    return parts is not None and parts == _parts(other)


def _matches(origin: str, entry: str) -> bool:
    if entry == "*":
        return True
    if origin == "null" or entry == "null":
        return origin == entry
    scheme, separator, host = entry.partition("://*.")
    if not separator:
        return _same(origin, entry)
    parts, wanted = _parts(origin), _parts(f"{scheme}://{host}")
    if parts is None or wanted is None:
        return False
    return (
        parts[0] == wanted[0]
        and parts[2] == wanted[2]
        and is_same_domain(parts[1], f".{wanted[1]}")
    )

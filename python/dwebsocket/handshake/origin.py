"""
Which pages may connect (RFC 6455 section 10.2).

Browsers let any page open a WebSocket to any site, cookies included; only the Origin header names
the page's site. The site itself is allowed, and the origins in ``CSRF_TRUSTED_ORIGINS`` and
``WEBSOCKET_ALLOWED_ORIGINS``. Clients that are no browsers send no Origin and may connect, unless
``WEBSOCKET_REQUIRE_ORIGIN`` is True.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpRequest

from dwebsocket import conf
from dwebsocket.compat.django import host_of, is_host_allowed, is_same_domain
from dwebsocket.request import BY_FALLBACK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The size of the cache of known hosts, and the longest name in it. Hosts beyond that are checked
# each time: `ALLOWED_HOSTS` can hold patterns, so a site may have any number of hosts.
_MOST_KNOWN = 1024
_LONGEST_KNOWN = 260


def objection(
    request: HttpRequest,
    allowed: Iterable[str],
    *,
    required: bool = False,
    now: conf.Snapshot | None = None,
) -> str | None:
    """
    Returns the reason why the request's Origin may not connect, None when it may.

    Args:
        request: A handshake. Its Host is checked by ``ALLOWED_HOSTS`` on the way.
        allowed: Origins that may connect besides the site's own, ``*.`` for subdomains, ``*`` for
            all, ``null`` for the opaque one, ``file://`` for that of files.
        required: Whether a client without an Origin, which is no browser, may not.
        now: The result of :func:`dwebsocket.conf.present`, if the caller has it.

    Raises:
        django.core.exceptions.DisallowedHost: The Host header is not one of the site's.
    """
    host = _host_of(request, now or conf.present())
    own = f"{'https' if request.is_secure() else 'http'}://{host}".lower()
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None and BY_FALLBACK in request.__dict__:
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
    return f"Origin {origin!r} is not this site ({own}): {_hint(request, origin, own, allowed)}"


def _hint(request: HttpRequest, origin: str, own: str, allowed: Iterable[str]) -> str:
    """Says what lets a page connect that may."""
    if _same(origin.replace("https://", "http://", 1), own):
        return "if a proxy ends TLS in front of Django, set SECURE_PROXY_SSL_HEADER"
    if not request.META.keys() & {"HTTP_ORIGIN", "HTTP_SEC_FETCH_SITE", "HTTP_REFERER"}:
        return "a page of this site has to send a Referer where there is no HTTPS"
    parts, here = conf.parts_of_origin(origin), conf.parts_of_origin(own)
    if parts is not None:
        meant = [each for each in allowed if each.partition("://")[2].split(":")[0] == parts[1]]
        if meant:
            return f"if it may connect, write it as it is here: allowed is {meant[0]!r}"
        forwarded = host_of(request.META.get("HTTP_X_FORWARDED_HOST", ""))
        is_own_name = bool(settings.ALLOWED_HOSTS) and "*" not in settings.ALLOWED_HOSTS
        is_own_name = is_own_name and is_host_allowed(parts[1], settings.ALLOWED_HOSTS)
        if here is not None and parts[1] != here[1] and (forwarded == parts[1] or is_own_name):
            return (
                "if it is a page of this site, a proxy in front of Django loses Host (nginx: "
                "proxy_set_header Host $http_host; Apache: ProxyPreserveHost On); if not, add it "
                "to WEBSOCKET_ALLOWED_ORIGINS if it may connect"
            )
    return "add it to WEBSOCKET_ALLOWED_ORIGINS if it may connect"


def may_connect(origin: str, own: str, allowed: Iterable[str]) -> bool:
    """Whether pages of ``origin`` may connect to the site ``own``, both in lower case."""
    if origin == own or _same(origin, own):
        return True
    return any(_matches(origin, entry.lower()) for entry in allowed)


def _of_page(headers: Mapping[str, str], own: str) -> str | None:
    """
    Returns the origin of a page whose browser sends none, as with a GET to the page's own site.
    """
    site = headers.get("HTTP_SEC_FETCH_SITE")
    if site == "same-origin":
        return own
    if referer := headers.get("HTTP_REFERER"):
        scheme, _, rest = referer.partition("://")
        return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}"
    # Without any of them it may be a link, an image or a `fetch` of any page, which hides itself on
    # sites without HTTPS. Cookies go along.
    is_hidden = site is None and (
        headers.get("HTTP_USER_AGENT", "").startswith("Mozilla/")
        or "text/html" in headers.get("HTTP_ACCEPT", "")
    )
    return "null" if is_hidden or site in ("same-site", "cross-site") else None


def _host_of(request: HttpRequest, now: conf.Snapshot) -> str:
    """
    Returns the request's ``get_host()``, from a cache where that is possible.

    The call itself takes as long as validating the whole handshake.

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


def _same(origin: str, other: str) -> bool:
    parts = conf.parts_of_origin(origin)
    return parts is not None and parts == conf.parts_of_origin(other)


def _matches(origin: str, entry: str) -> bool:
    if entry == "*":
        return True
    if entry in conf.SPECIAL_ORIGINS:
        return origin == entry
    scheme, separator, host = entry.partition("://*.")
    if not separator:
        return _same(origin, entry)
    parts, wanted = conf.parts_of_origin(origin), conf.parts_of_origin(f"{scheme}://{host}")
    if parts is None or wanted is None:
        return False
    return (
        parts[0] == wanted[0]
        and parts[2] == wanted[2]
        and is_same_domain(parts[1], f".{wanted[1]}")
    )

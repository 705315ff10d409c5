"""
The report of the site about itself, from inside, for ``manage.py websocket_doctor``.

A handshake that carries a fresh question, signed for this host with the project's ``SECRET_KEY``,
is not validated but answered with a report: the server, the parts of the request that arrived, and
the limits of the process. The report is signed, too.
"""

from __future__ import annotations

import json
import platform
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

import django
from django.core import signing
from django.http import JsonResponse

from dwebsocket import _core, conf
from dwebsocket.compat import eventlet, gevent, gunicorn
from dwebsocket.compat.asgiref import django_locals_are_green
from dwebsocket.compat.system import limits_of
from dwebsocket.exceptions import UnsupportedServer
from dwebsocket.handshake import origin, upgrade
from dwebsocket.operations.doctor import site_question
from dwebsocket.operations.doctor.site_question import place_of, signer
from dwebsocket.operations.snapshot import of_groups
from dwebsocket.servers import find_client
from dwebsocket.servers.asgi import SCOPE_KEY, NativeHandshake
from dwebsocket.telemetry.records import event_counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.http import HttpRequest

_ASGI_SERVERS = ("uvicorn", "daphne", "hypercorn", "granian", "gunicorn")
_FORWARDED = (
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_FORWARDED",
    "HTTP_VIA",
)


def answer(request: HttpRequest, options: conf.Options) -> JsonResponse | None:
    """
    Returns the report when the request asks for one with a valid signature.

    The answer to a question for another host says that, and what arrived of the request, but
    nothing about the site.

    Args:
        request: A handshake, even a malformed one.
        options: The options of its view.

    Raises:
        django.core.exceptions.DisallowedHost: The Host header is not one of the site's.
    """
    place = site_question.asked_place(request.META)
    if place is None:
        return None
    is_host_refused = site_question.REFUSED_HOST in request.META
    if not is_host_refused and place == place_of(request.get_host(), request.path):
        report = _report(request, options)
    elif place.partition("/")[2] == place_of("", request.path).partition("/")[2]:
        report = {"request": _of_another_host(request, options)}
    else:
        return None
    response = JsonResponse(report, headers={"Cache-Control": "no-store"})
    response["Content-Length"] = str(len(response.content))
    signed = signer(request.headers[site_question.HEADER]).sign(response.content.decode())
    response[site_question.HEADER] = signed.rpartition(":")[2]
    return response


def read(body: bytes, asked: str, signature: str) -> dict[str, Any] | None:
    """
    Returns the report in an answer, None when no site with our ``SECRET_KEY`` has signed it.

    Args:
        body: The body of the answer.
        asked: The :func:`question` that it answers.
        signature: The header of the answer.
    """
    try:
        # The signature is checked before parsing: any server may have sent the body.
        signed = signer(asked).unsign(f"{body.decode()}:{signature}")
    except (UnicodeDecodeError, signing.BadSignature):
        return None
    report: dict[str, Any] = json.loads(signed)
    return report


def _report(request: HttpRequest, options: conf.Options) -> dict[str, Any]:
    return {
        "versions": {
            "dwebsocket2": _version(),
            "Django": django.get_version(),
            "Python": platform.python_version(),
        },
        "server": {**_server(request), **_worker(), **_green()},
        "request": _request(request, options),
        "process": {
            "open_files": limits_of("NOFILE")[0],
            "connections": _core.open_connections(),
            "leaving": _core.is_leaving(),
            "events": event_counts(),
            "groups": of_groups(),
        },
        "settings": {
            # Where an ASGI server keeps the connection only it sends pings, if at all.
            "ping_interval": None if _kept(request) else options.ping_interval,
            "pings": "server" if _kept(request) else "engine",
            "max_connections": conf.get_or("MAX_CONNECTIONS", otherwise=None),
            "drain": conf.get_or("DRAIN", otherwise=None),
        },
    }


def _version() -> str | None:
    try:
        return metadata.version("dwebsocket2")
    except metadata.PackageNotFoundError:
        return None


def _asgi_scope(request: HttpRequest) -> Mapping[str, Any] | None:
    """Returns the ASGI scope of a WebSocket."""
    scope = getattr(request, "scope", None)
    return scope if scope is not None and scope.get("type") == "websocket" else None


def _handshake(request: HttpRequest) -> Any:
    return (_asgi_scope(request) or {}).get(SCOPE_KEY)


def _kept(request: HttpRequest) -> str | None:
    """
    Returns the reason why an ASGI server keeps the connection; None where the engine takes it.
    """
    if _asgi_scope(request) is None:
        return None
    handshake = _handshake(request)
    if isinstance(handshake, NativeHandshake):
        return None
    return getattr(handshake, "reason", "") or "it does not give its clients' connections away"


def _server(request: HttpRequest) -> dict[str, Any]:
    if _asgi_scope(request) is not None:
        name, handshake = _asgi_server(), _handshake(request)
        server = {"software": name, "name": name, "refusal": None, "kept": _kept(request)}
        if not isinstance(handshake, NativeHandshake):
            return server
        client = handshake.client
    elif getattr(request, "scope", None) is not None:
        # A handshake as plain HTTP.
        return {"software": _asgi_server(), "name": None, "refusal": None, "plain_http": True}
    else:
        server = {"software": request.META.get("SERVER_SOFTWARE", ""), "refusal": None}
        try:
            client = find_client(request.META)
        except UnsupportedServer as error:
            return {**server, "name": None, "refusal": str(error)}
        server["name"] = client.server
    plan = client.shutdown_plan()(terminated=True)
    return {**server, "timeout_s": plan.timeout_s, "limit": plan.limit}


def _asgi_server() -> str:
    known = [name for name in _ASGI_SERVERS if name in sys.modules]
    return f"{known[0] if known else 'a server'} (ASGI)"


def _worker() -> dict[str, Any]:
    """
    Returns the class of gunicorn's worker and its settings; signal handlers lead to the worker.
    """
    cfg = getattr(gunicorn.worker("cfg"), "cfg", None)
    if cfg is None or "gunicorn" not in sys.modules:
        return {"worker_class": None}
    return {"worker_class": cfg.worker_class_str, "workers": cfg.workers, "threads": cfg.threads}


def _green() -> dict[str, Any]:
    """
    Returns the kind of green threads here, and whether the standard library is patched for them.

    Patching after the import of Django counts for nothing: it shares what is to be each thread's.
    """
    early = django_locals_are_green()
    if gevent.is_in_greenlet():
        monkey = sys.modules.get("gevent.monkey")
        patched = monkey is not None and monkey.is_module_patched("socket")
        return {"green": "gevent", "patched": bool(patched) and early}
    if eventlet.is_in_green_thread():
        patcher = sys.modules.get("eventlet.patcher")
        patched = patcher is not None and patcher.is_monkey_patched("socket")
        return {"green": "eventlet", "patched": bool(patched) and early}
    return {"green": None, "patched": None}


def _arrived(request: HttpRequest) -> dict[str, Any]:
    """Returns what proxies often lose."""
    names = {
        "protocol": "SERVER_PROTOCOL",
        "upgrade": "HTTP_UPGRADE",
        "connection": "HTTP_CONNECTION",
    }
    arrived = {name: request.META.get(key) for name, key in names.items()}
    if (scope := getattr(request, "scope", None)) is not None:
        arrived["protocol"] = f"HTTP/{scope.get('http_version', '1.1')}"
    if _asgi_scope(request) is not None:
        # Some servers do not pass these headers on; without them there would be no WebSocket.
        arrived |= {"upgrade": "websocket", "connection": "Upgrade"}
    is_redirected = site_question.REFUSED_SCHEME in request.META
    is_secure = request.is_secure() and not is_redirected
    return {**arrived, "secure": is_secure, "redirected": is_redirected}


def _of_another_host(request: HttpRequest, options: conf.Options) -> dict[str, Any]:
    """Returns the facts for another Host. A stranger could find them by handshakes, too."""
    found = {
        **_arrived(request),
        "origin_allowed": _objection(request, options) is None,
        "made_up_address": request.META.get("REMOTE_ADDR") == site_question.MADE_UP,
    }
    if (refused := request.META.get(site_question.REFUSED_HOST)) is not None:
        found["refused_host"] = refused
    return found


def _objection(request: HttpRequest, options: conf.Options) -> str | None:
    return origin.objection(request, options.allowed_origins, required=options.require_origin)


def _request(request: HttpRequest, options: conf.Options) -> dict[str, Any]:
    meta = request.META
    return {
        **_arrived(request),
        "host": request.get_host(),
        "origin": meta.get("HTTP_ORIGIN"),
        "objection": _objection(request, options),
        "peer": meta.get("REMOTE_ADDR"),
        "forwarded": {name: meta[name] for name in _FORWARDED if name in meta},
    }


# The handshake may not import this room.
upgrade.answering_first.append(answer)

"""Checks that need no request to the site: settings, this machine, the servers that run here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core import checks as django_checks

from dwebsocket import conf
from dwebsocket.compat.system import UNLIMITED, limits_of
from dwebsocket.conf import checks
from dwebsocket.operations.doctor import (
    Finding,
    error,
    fine,
    groups,
    handover,
    machine,
    process,
    warning,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# Descriptors that a process needs beside its WebSockets, a generous estimate.
_OTHER_FILES = 100
# The WebSockets that a process may have where nothing limits them.
_MANY = 10_000
# Seconds that views and clients need between the last close frame and the end of the process.
_CLOSE_S = 1.5


def examine(proxy_timeout: float, connections: int | None = None) -> Iterator[Finding]:
    """
    Looks at the project's settings and at this machine.

    Args:
        proxy_timeout: Seconds of silence after which the proxy in front cuts a connection.
        connections: WebSockets that are expected here, over all processes. None takes as many as
            one process may have.
    """
    yield from _system_checks()
    yield from _hosts()
    yield from _tls()
    yield from ping(_value("PING_INTERVAL"), proxy_timeout)
    most = _value("MAX_CONNECTIONS")
    soft, hard = limits_of("NOFILE")
    yield from files(most, soft, hard)
    if connections is None:
        connections = (_MANY if soft == UNLIMITED else soft) if most is None else most
    of_a_process = connections if most is None else min(most, connections)
    stack_bytes = _value("THREAD_STACK_SIZE")
    yield from machine.examine(connections, of_a_process, stack_bytes)
    yield from groups.examine()
    yield from handover.examine()
    window = _value("DRAIN")
    if not window:
        yield from drain(window, None, "")
    if not process.is_visible():
        yield fine(
            "server.process", "This system does not show which servers run: it has no /proc."
        )
    for server in process.servers():
        yield fine("server.process", f"{server.name} runs here as process {server.pid}.")
        if (given := process.files(server.pid)) is not None and given != (soft, hard):
            yield from files(most, *given, f"{server.name}, process {server.pid},")
        if window and server.graceful_s is not None:
            yield from drain(window, server.graceful_s, server.name)


def ping(interval: float | None, proxy_timeout: float) -> Iterator[Finding]:
    """Compares the ping interval with the timeout of the proxy."""
    if interval is None:
        yield warning(
            "ping.off",
            "WEBSOCKET_PING_INTERVAL is None: a silent connection is cut by any proxy after its "
            f"timeout ({proxy_timeout:g} s), and a client that vanished is not noticed.",
            f"Set WEBSOCKET_PING_INTERVAL below {proxy_timeout:g}.",
        )
    elif interval >= proxy_timeout:
        yield error(
            "ping.slow",
            f"A ping goes out every {interval:g} s, but the proxy cuts a connection that is silent "
            f"for {proxy_timeout:g} s.",
            f"Set WEBSOCKET_PING_INTERVAL to {proxy_timeout * 0.4:g}, or raise the proxy's timeout "
            "(nginx: proxy_read_timeout). If the proxy's is another one, say --proxy-timeout.",
        )
    else:
        yield fine(
            "ping", f"A ping every {interval:g} s is within the proxy's {proxy_timeout:g} s."
        )


def files(
    connections: int | None, soft: int, hard: int | None = None, whose: str = "A process"
) -> Iterator[Finding]:
    """
    Compares the connections of a process with the descriptors that it may have.

    Args:
        connections: As many as it may have; None for no limit.
        soft: Its limit of descriptors.
        hard: The value to which it may raise ``soft`` by itself; None when that is not known.
        whose: The owner of the limit, as the beginning of a sentence.
    """
    if soft == UNLIMITED:
        return
    if connections is None:
        connections = soft
    if connections + _OTHER_FILES > soft:
        need = connections + 1000
        # Only root can raise it, so systemd or limits.conf has to.
        above = hard is not None and hard != UNLIMITED and need > hard
        yield warning(
            "files",
            f"{whose} may hold {connections} WebSockets (WEBSOCKET_MAX_CONNECTIONS), but only "
            f"{soft} descriptors (ulimit -n): beyond that nothing can be opened, not even a page.",
            f"Start the server with ulimit -n {need} (systemd: LimitNOFILE={need}"
            + (f"; the hard limit is {hard}, in /etc/security/limits.conf" if above else "")
            + "), or set "
            f"WEBSOCKET_MAX_CONNECTIONS to {max(1, soft - _OTHER_FILES)} or less.",
        )
    else:
        yield fine("files", f"{soft} descriptors suffice for {connections} WebSockets.")


def drain(window: float, end_after: float | None, limit: str) -> Iterator[Finding]:
    """Compares the drain window with the time that the server gives a process to end."""
    if not window:
        yield fine(
            "drain.off",
            "WEBSOCKET_DRAIN is 0: the clients of a process that ends are all told at once, and "
            "come back at once. Where reloads find others serving, 5 to 10 spreads them.",
        )
    elif end_after is not None and window > (room := max(0.0, end_after - _CLOSE_S)):
        yield error(
            "drain.long",
            f"WEBSOCKET_DRAIN is {window:g} s, but {limit} ends a process after {end_after:g} s.",
            f"Set WEBSOCKET_DRAIN to {room:g} or less, or raise that limit (gunicorn: "
            f"--graceful-timeout {window + 2:g} and --timeout {2 * window + 4:g} or more).",
        )
    else:
        yield fine("drain", f"A drain of {window:g} s fits into what the server waits.")


def _system_checks() -> Iterator[Finding]:
    for message in checks.check():
        make = error if message.level >= django_checks.ERROR else warning
        yield make(str(message.id), message.msg, message.hint or "Change the setting.")


def _hosts() -> Iterator[Finding]:
    if not settings.ALLOWED_HOSTS and not settings.DEBUG:
        yield error(
            "hosts.none",
            "ALLOWED_HOSTS is empty and DEBUG is off: every request gets 400.",
            "List the site's host names in ALLOWED_HOSTS.",
        )
    elif "*" in settings.ALLOWED_HOSTS:
        yield warning(
            "hosts.all",
            'ALLOWED_HOSTS has "*": the Origin of a WebSocket is compared with a Host that anybody '
            "may choose.",
            "List the site's host names in ALLOWED_HOSTS.",
        )
    if "*" in _value("ALLOWED_ORIGINS"):
        yield warning(
            "origins.all",
            'WEBSOCKET_ALLOWED_ORIGINS has "*": any page may connect with the cookies of its '
            "visitor.",
            "List the origins that may connect, or check in the view who is there.",
        )


def _tls() -> Iterator[Finding]:
    secure = [
        name
        for name in ("SECURE_SSL_REDIRECT", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE")
        if getattr(settings, name, False)
    ]
    if secure and settings.SECURE_PROXY_SSL_HEADER is None:
        yield warning(
            "tls.header",
            f"{secure[0]} says that the site speaks TLS, but SECURE_PROXY_SSL_HEADER is not set: "
            "if a proxy ends TLS, Django takes each request for plain HTTP and each Origin for a "
            "foreign one.",
            "Let the proxy set X-Forwarded-Proto, and set SECURE_PROXY_SSL_HEADER = "
            '("HTTP_X_FORWARDED_PROTO", "https").',
        )


def _value(name: str) -> Any:
    return conf.get_or(name, otherwise=conf.read(name, conf.SETTINGS[name].default))

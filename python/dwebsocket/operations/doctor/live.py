"""
Checks of a running site, by real handshakes and by the site's report on what arrived of them.

Without a report (the view was not reached, or the site has another ``SECRET_KEY``) the checks use
the answer to the handshake.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.conf import settings

from dwebsocket import conf
from dwebsocket.client import connect
from dwebsocket.client.address import Address
from dwebsocket.compat.django import host_of, is_host_allowed
from dwebsocket.compat.system import monotonic
from dwebsocket.exceptions import (
    ConnectionClosed,
    ConnectionFailed,
    HandshakeRefused,
    ReceiveTimeout,
)
from dwebsocket.operations.doctor import (
    Finding,
    Level,
    error,
    fine,
    local,
    site_question,
    site_report,
    warning,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dwebsocket.client import ClientConnection

_FOREIGN = "https://websocket-doctor.invalid"
_NGINX = "nginx needs proxy_http_version 1.1, proxy_set_header Upgrade $http_upgrade and "
_SNIPPET = "(all of it: websocket_doctor --proxy nginx)"
_BOTH_HEADERS = f"{_NGINX}proxy_set_header Connection $connection_upgrade {_SNIPPET}."


@dataclass(frozen=True)
class Target:
    """
    The parameters for checking a site.

    Attributes:
        url: Its address, ``ws://`` or ``wss://``.
        headers: More headers, such as a session's cookie.
        origins: Further origins that should be allowed.
        proxy_timeout: Seconds of silence after which the proxy in front cuts a connection.
        silence: Seconds to keep silent, to see whether the connection survives.
        timeout: Seconds for each step.
        ca_file: Trust the certificates in this file, not those of the system.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    origins: tuple[str, ...] = ()
    proxy_timeout: float = 60
    silence: float = 0
    timeout: float = 10
    ca_file: str | None = None

    @functools.cached_property
    def address(self) -> Address:
        """The parts of the URL."""
        return Address.parse(self.url)

    def shake_hands(self, **headers: str) -> ClientConnection | HandshakeRefused:
        """
        Makes one handshake as a page of the site does, whatever proxies the environment names.

        Args:
            **headers: More headers, with underscores for hyphens. They replace others.

        Raises:
            ConnectionFailed: The server gave no valid answer in time.
            ValueError: A header cannot be sent, or there are no certificates in ``ca_file``.
        """
        usual = {"User-Agent": "websocket_doctor", "Origin": self.address.origin}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        every = [*usual.items(), *self.headers.items(), *given.items()]
        sent = {name.lower(): (name, value) for name, value in every}
        try:
            return connect(
                self.url,
                headers=list(sent.values()),
                open_timeout=self.timeout,
                # A silent client shows whether the site's own pings keep a connection alive.
                ping_interval=None,
                compression=False,
                ca_file=self.ca_file,
                proxy=None,
            )
        except HandshakeRefused as refused:
            return refused


def examine(visit: Target) -> Iterator[Finding]:
    """
    Checks a running site by a few handshakes.

    The server is not trusted: each handshake ends within the visit's ``timeout``, and a report
    counts only with the signature of a site that has the same ``SECRET_KEY``.
    """
    answer: ClientConnection | HandshakeRefused | None = None
    try:
        answer = visit.shake_hands()
        report = _ask(visit)
        found = [*_findings_of(visit, report)] if report is not None else []
        yield from found
        blamed = any(finding.level is Level.ERROR for finding in found)
        if isinstance(answer, HandshakeRefused):
            if not blamed:
                yield _refused(visit, answer, report)
            if report is not None:
                yield from _origins(visit, _origin_in_report)
            if visit.silence:
                yield warning(
                    "silence.unknown",
                    "No WebSocket opens, so the time after which a proxy cuts a silent one is not "
                    "known.",
                    "Run the command again when the errors are mended.",
                )
            return
        yield fine("handshake", f"{visit.address.origin} answers 101 with the right key.")
        if report is None:
            yield warning(
                "report.none",
                "The site upgrades, but gives no report: it runs something else, an older version, "
                "or with another SECRET_KEY than this command; its clock is a minute off; or its "
                "server cannot answer a handshake with a page (daphne).",
                "Run the command with the site's own settings.",
            )
        if visit.silence:
            yield from _keep_silent(visit, answer, report)
        yield from _origins(visit, _origin_in_handshake)
    except OSError as problem:
        yield _unreachable(visit.address, problem)
    finally:
        if answer is not None and not isinstance(answer, HandshakeRefused):
            answer.close()


def _ask(visit: Target, **more: str) -> dict[str, Any] | None:
    path = visit.address.target.partition("?")[0]
    question = site_question.question(visit.address.netloc, path)
    # A client must not be able to choose its address: the report shows whether this one did.
    headers = {site_question.HEADER: question, "X-Forwarded-For": site_question.MADE_UP, **more}
    answer = visit.shake_hands(**headers)
    if not isinstance(answer, HandshakeRefused):
        answer.close()
        return None
    assert answer.headers is not None
    signature = answer.headers.get(site_question.HEADER, "")
    return site_report.read(answer.body, question, signature)


def _unreachable(address: Address, problem: OSError) -> Finding:
    where = f"{address.host}:{address.port}"
    step = problem.step if isinstance(problem, ConnectionFailed) else None
    if step == "handshake":
        return error(
            "handshake.key",
            f"{where} answers 101, but {problem}.",
            "Something between answers in the server's place: look at proxies and caches.",
        )
    if step == "certificate":
        return error(
            "tls.certificate",
            f"{where} has a certificate that is not trusted: {problem}. Browsers "
            "refuse a wss:// address then without saying so to the page.",
            "Install the whole chain of a certificate for this name.",
        )
    if step == "tls":
        return error(
            "tls.none",
            f"{where} does not speak TLS: {problem}.",
            "Use ws:// for this address, or let the proxy listen with TLS here.",
        )
    return error(
        "unreachable",
        f"{where} does not answer: {problem}.",
        "Is the server running, and is this the address where it (or the proxy) listens?",
    )


def _findings_of(visit: Target, report: Mapping[str, Any]) -> Iterator[Finding]:
    request = report["request"]
    if "host" not in request:
        # A site reports little else when the question was signed for another Host than it got;
        # one of an older version nothing.
        yield from _lost_host(visit, request.get("refused_host"))
        if "upgrade" in request:
            yield from _arrived(visit, request)
        if request.get("made_up_address"):
            yield _addresses({"peer": site_question.MADE_UP, "forwarded": {}})
        return
    yield from _server(report)
    yield from _arrived(visit, report["request"])
    yield _addresses(report["request"])
    process, options = report["process"], report["settings"]
    yield from _way(report["server"])
    if options["pings"] == "engine":
        yield from local.ping(options["ping_interval"], visit.proxy_timeout)
    else:
        yield from _server_pings(report["server"]["software"], visit.proxy_timeout)
    yield from local.files(options["max_connections"], process["open_files"])
    if "timeout_s" in report["server"]:
        server = report["server"]
        limit = server["limit"] or "the server"
        yield from local.drain(options["drain"] or 0.0, server["timeout_s"], limit)


def _way(server: Mapping[str, Any]) -> Iterator[Finding]:
    """Explains which of the two ways an ASGI server's connections go."""
    # Only reports of ASGI servers have it.
    if "kept" not in server:
        return
    name = server["software"]
    if server["kept"] is None:
        yield fine(
            "asgi.native",
            f"The engine takes the connections over from {name}: all settings are in effect.",
        )
    else:
        yield fine(
            "asgi.kept",
            f"{name} keeps the connections, because {server['kept']}: pings, compression and the "
            "limits on frames are its own. docs/servers/asgi.md says what differs.",
        )


def _server_pings(software: str, proxy_timeout: float) -> Iterator[Finding]:
    """Explains that the ASGI server sends the pings, and that their interval is not known here."""
    if software.startswith("granian"):
        yield warning(
            "ping.none",
            "granian sends no pings, and under ASGI only the server can: a proxy cuts a connection "
            f"that is silent for {proxy_timeout:g} s.",
            "Let the pages say something now and then, or run the site on uvicorn.",
        )
    else:
        yield fine(
            "ping.server",
            f"Under ASGI the server sends the pings, not WEBSOCKET_PING_INTERVAL: keep its own "
            f"interval (uvicorn: --ws-ping-interval, 20 s) below the proxy's {proxy_timeout:g} s; "
            "--silence tries it.",
        )


def _server(report: Mapping[str, Any]) -> Iterator[Finding]:
    server, versions = report["server"], report["versions"]
    name = server["software"] or server["name"] or "an unknown server"
    if server["worker_class"]:
        name += f", worker class {server['worker_class']}"
        name += f", {server['workers']} workers of {server['threads']} threads"
    yield fine(
        "server",
        f"The site runs on {name}; "
        + ", ".join(f"{part} {version}" for part, version in versions.items())
        + f"; {report['process']['connections']} WebSockets are open in the process that answered.",
    )
    events = [
        f"{event} {code}: {count}"
        for event, counts in report["process"]["events"].items()
        for code, count in counts.items()
    ]
    if events:
        yield fine("server.events", f"That process has counted {', '.join(events)}.")
    for alias, counts in report["process"]["groups"].items():
        if found := _counted(counts):
            yield fine(
                "server.groups", f"That process has counted for groups of {alias!r}: {found}."
            )
    if server["green"] and not server["patched"]:
        yield error(
            "server.unpatched",
            f"Views run on {server['green']}'s green threads, but the standard library was not "
            "monkey-patched before Django was imported: a view that waits stops all others of its "
            "process, or shares their database connection and event loop.",
            f"Call {server['green']}'s monkey patching first thing in the process "
            "(gevent: from gevent import monkey; monkey.patch_all() on top of wsgi.py, or of "
            "gunicorn.conf.py where gunicorn has --preload).",
        )
    if server["refusal"]:
        yield error("server.unsupported", server["refusal"], "Run the site on another server.")
    if server.get("plain_http"):
        yield error(
            "server.plain_http",
            "No WebSocket on this server: it is an ASGI server that took the handshake for plain "
            "HTTP, and clients get 501.",
            "Install and enable its WebSocket support (for uvicorn: pip install websockets, and "
            "not --ws none).",
        )
    if report["process"]["leaving"]:
        yield warning(
            "server.leaving",
            "The process that answered is ending and takes no new WebSocket.",
            "Ask again when the deploy is over.",
        )


def _counted(counts: Mapping[str, Any]) -> str:
    """Returns the counters of a backend of groups that are not zero."""
    dropped = {f"dropped ({reason})": count for reason, count in counts["dropped"].items()}
    numbers = {
        **{name: counts[name] for name in counts if name not in ("dropped", "lag", "history")},
        **dropped,
    }
    found = [f"{name} {count}" for name, count in numbers.items() if count]
    if counts["lag"] is not None:
        found.append(f"lag {1000 * counts['lag']:.1f} ms")
    # A site of another version may know nothing of it.
    if (history := counts.get("history")) is not None:
        found.append(f"history {history['bytes']} bytes, {history['evicted']} messages evicted")
    return ", ".join(found)


def _lost_host(visit: Target, refused: str | None) -> Iterator[Finding]:
    """Explains a Host that is not the address's; ``ALLOWED_HOSTS`` lacks ``refused``."""
    asked = visit.address.netloc
    host = host_of(asked)
    if refused is None or refused.lower() != asked.lower():
        what = f"another than {asked!r}: every page of the site is a foreign origin."
        if refused is not None:
            what = f"{refused!r} in place of {asked!r}. That is not allowed: each request gets 400."
        yield error(
            "proxy.host",
            f"Host reaches Django as {what}",
            "nginx: proxy_set_header Host $http_host; Apache: ProxyPreserveHost On. If the proxy "
            "tells it in X-Forwarded-Host: USE_X_FORWARDED_HOST = True.",
        )
        if is_host_allowed(host, settings.ALLOWED_HOSTS):
            return
    yield _not_allowed(host)


def _not_allowed(host: str) -> Finding:
    return error(
        "hosts.missing",
        f"{host!r} is not in ALLOWED_HOSTS: each request for it gets 400.",
        f"Add {host!r} to ALLOWED_HOSTS.",
    )


def _arrived(visit: Target, request: Mapping[str, Any]) -> Iterator[Finding]:
    """Checks which parts of the request reached Django through the proxies."""
    tokens = [token.strip().lower() for token in (request["connection"] or "").split(",")]
    blamed = False
    if not request["upgrade"]:
        blamed = True
        yield error(
            "proxy.upgrade",
            f"The Upgrade header does not reach Django (Connection arrives as "
            f"{request['connection']!r}, over {request['protocol']}): a proxy drops it.",
            f"{_BOTH_HEADERS} Apache needs upgrade=websocket in its ProxyPass.",
        )
    elif "upgrade" not in tokens:
        blamed = True
        yield error(
            "proxy.connection",
            f"Connection reaches Django as {request['connection']!r} instead of Upgrade.",
            _BOTH_HEADERS,
        )
    if request["protocol"] == "HTTP/1.0":
        blamed = True
        yield error(
            "proxy.http10",
            "The proxy speaks HTTP/1.0 to the server, which knows no upgrades.",
            f"nginx: proxy_http_version 1.1 {_SNIPPET}.",
        )
    if visit.address.secure and not request["secure"]:
        header = "HTTP_X_FORWARDED_PROTO"
        told = request.get("forwarded", {}).get(header)
        yield error(
            "proxy.scheme",
            "The client speaks TLS, but Django takes the request for plain HTTP "
            + (f"although X-Forwarded-Proto arrives as {told!r}" if told else "")
            + ": every page of the site is a foreign origin.",
            ("" if told else "Let the proxy set it: proxy_set_header X-Forwarded-Proto $scheme. ")
            + f'Set SECURE_PROXY_SSL_HEADER = ("{header}", "https").',
        )
        blamed = True
    elif not visit.address.secure and request["secure"]:
        yield warning(
            "proxy.insecure",
            "The client speaks no TLS, but Django takes the request for one that does.",
            "Let the proxy overwrite X-Forwarded-Proto, whatever the client sent.",
        )
    elif request.get("redirected"):
        blamed = True
        yield error(
            "handshake.redirect",
            "The site redirects plain HTTP to HTTPS (SECURE_SSL_REDIRECT). Browsers do not follow "
            "redirects of WebSockets.",
            "Use wss:// in the address.",
        )
    if request.get("objection") and not blamed:
        yield error(
            "origin.own",
            f"A page of the site itself may not connect. {request['objection']}.",
            "Add the origin of the site's pages to WEBSOCKET_ALLOWED_ORIGINS.",
        )


def _addresses(request: Mapping[str, Any]) -> Finding:
    """Checks whether a client can choose the address that Django sees."""
    peer = request["peer"]
    if peer != site_question.MADE_UP:
        seen = (
            f"Django sees this client as {peer}" if peer else "Django gets no address of a client"
        )
        return fine("forwarded", f"{seen}; a made-up X-Forwarded-For changes nothing.")
    # The short report, for another Host, lacks this header.
    arrived = request["forwarded"].get("HTTP_X_FORWARDED_FOR")
    how = f" (it arrives as {arrived!r})" if arrived else ""
    return warning(
        "forwarded.believed",
        f"The X-Forwarded-For that a client makes up is believed{how}: logs and limits can be "
        "given any address.",
        "Let the proxy overwrite it: nginx: proxy_set_header X-Forwarded-For $remote_addr; Apache: "
        "RequestHeader unset X-Forwarded-For. If --url is the server's own address: servers that "
        "believe the header (uvicorn) believe it of their own machine, so ask from another one, "
        "and set --forwarded-allow-ips to the addresses of proxies alone.",
    )


def _refused(visit: Target, answer: HandshakeRefused, report: Mapping[str, Any] | None) -> Finding:
    """Explains a handshake that was refused, mostly before it reached a view that takes it."""
    status, headers = answer.status, answer.headers
    assert headers is not None
    said = f"The handshake gets {status} {answer.reason}".rstrip()
    whole = said
    if headers.get("content-type", "").startswith("text/plain"):
        line = answer.body[:300].decode(errors="replace").strip().partition("\n")[0]
        whole += f": {line}" if line else ""
    whole = f"{whole.rstrip('.')}."
    host = host_of(visit.address.netloc)
    if status == 400 and report is None and not is_host_allowed(host, settings.ALLOWED_HOSTS):
        return _not_allowed(host)
    if status in (301, 302, 307, 308):
        where = headers.get("location", "")
        return error(
            "handshake.redirect",
            f"{said} to {where!r}. Browsers do not follow redirects of WebSockets.",
            "Use the address that it names; if it is the log-in page, send the session of a user: "
            "--header 'Cookie: sessionid=…'.",
        )
    if status in (401, 403):
        return error(
            "handshake.forbidden",
            whole,
            "If the view needs a signed-in user, send a session: --header 'Cookie: sessionid=…'. "
            "The site's log has the reason.",
        )
    if status == 404:
        return error(
            "handshake.missing",
            f"{said}: there is no such address, or the proxy sends it elsewhere.",
            "Give the address of a view that takes WebSockets.",
        )
    if status in (502, 503, 504) and report is None:
        return error(
            "proxy.upstream",
            f"{said}: the proxy does not reach the server, or the server takes no more.",
            "Is the server running, and does it listen where the proxy looks for it? Its own log "
            "tells of a limit (WEBSOCKET_MAX_CONNECTIONS).",
        )
    if status == 500 and report is None:
        return error(
            "handshake.failed",
            whole,
            "The site's log has the traceback. If it is \"Django can only handle ASGI/HTTP "
            'connections, not websocket", add "dwebsocket" to INSTALLED_APPS and restart the '
            "server, or use dwebsocket.asgi.get_asgi_application() in asgi.py.",
        )
    cure = (
        "Give the address of a view with @accept_websocket. If it is one, the site's log says why."
    )
    if status == 400:
        cure += (
            " If that is Invalid HTTP_HOST header, a proxy changes Host: nginx: proxy_set_header "
            "Host $http_host; Apache: ProxyPreserveHost On."
        )
    return error("handshake", whole, cure)


def _origin_in_handshake(visit: Target, origin: str) -> str | None:
    """Returns why a page of ``origin`` may not connect, None if it may, by trying it."""
    answer = visit.shake_hands(Origin=origin)
    if isinstance(answer, HandshakeRefused):
        return f"{answer.status} {answer.reason}".rstrip()
    answer.close()
    return None


def _origin_in_report(visit: Target, origin: str) -> str | None:
    """
    Returns the same from the site's report, where every handshake fails for other reasons.

    Raises:
        LookupError: The report lacks it, as the site has another version.
    """
    report = _ask(visit, Origin=origin)
    request = report["request"] if report is not None else {}
    if "objection" in request:
        objection: str | None = request["objection"]
        return objection
    return None if request["origin_allowed"] else "its origin is not allowed"


def _origins(visit: Target, ask: Callable[[Target, str], str | None]) -> Iterator[Finding]:
    try:
        for origin in visit.origins:
            if (objection := ask(visit, origin)) is not None:
                yield error(
                    "origin.refused",
                    f"A page of {origin} may not connect: {objection}.",
                    f'Add "{origin}" to WEBSOCKET_ALLOWED_ORIGINS.',
                )
            else:
                yield fine("origin.allowed", f"A page of {origin} may connect.")
        objection = ask(visit, _FOREIGN)
    except LookupError:
        return
    if objection is not None:
        yield fine("origin.foreign", f"A page of another site may not connect ({objection}).")
        return
    yield (warning if "*" in conf.get("ALLOWED_ORIGINS") else error)(
        "origin.everybody",
        f"A page of {_FOREIGN}, or of anywhere, may connect with the cookies of its visitor.",
        'Remove "*" from WEBSOCKET_ALLOWED_ORIGINS or from the view\'s allowed_origins; or let the '
        "proxy leave the Origin header alone, if it removes it.",
    )


def _keep_silent(
    visit: Target, websocket: ClientConnection, report: Mapping[str, Any] | None
) -> Iterator[Finding]:
    began = monotonic()
    ended = _end_within(visit.silence, websocket)
    if ended is None:
        yield fine(
            "silence",
            f"The connection survived {visit.silence:g} s of silence; "
            f"{websocket.pings_received} pings came.",
        )
    elif ended.by == "peer":
        yield fine("silence", "The view itself closed the connection meanwhile.")
    elif ended.by == "local":
        yield error(
            "silence.broken",
            f"What came after the handshake is no WebSocket: {ended.reason or ended.code}.",
            "Something between answers in the server's place: look at proxies and caches.",
        )
    else:
        lasted = monotonic() - began
        interval = report["settings"]["ping_interval"] if report is not None else None
        own = report is not None and report["settings"]["pings"] == "engine"
        pings = f"WEBSOCKET_PING_INTERVAL is {interval}" if own else "the server's pings came later"
        yield error(
            "silence.cut",
            f"The connection was cut after {lasted:.1f} s of silence ({pings}).",
            f"Set WEBSOCKET_PING_INTERVAL below {max(0.1, lasted * 0.4):.2g}, or raise the proxy's "
            "timeout (nginx: proxy_read_timeout).",
        )


def _end_within(seconds: float, websocket: ClientConnection) -> ConnectionClosed | None:
    """Sends nothing, takes what comes, and returns the end of the connection if that is in time."""
    deadline = monotonic() + seconds
    try:
        while (left := deadline - monotonic()) > 0:
            websocket.receive(left)
    except ReceiveTimeout:
        return None
    except ConnectionClosed as ended:
        return ended
    return None

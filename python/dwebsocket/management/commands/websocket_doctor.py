"""``manage.py websocket_doctor``: finds problems around WebSockets, and their fixes."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from dwebsocket import conf
from dwebsocket.client.address import Address
from dwebsocket.exceptions import UnsupportedServer
from dwebsocket.management.arguments import check_number, header_of, text_of
from dwebsocket.operations.doctor import Level, live, local
from dwebsocket.operations.doctor.proxy_configs import PROXIES, Site, snippet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwebsocket.operations.doctor import Finding

_HOST, _PORT, _LAST_PORT = r"(?:[\w.-]+|\[[\da-fA-F:.]+\]|\*)", r"(?P<port>\d+)", 65535
_DESCRIPTION = """
Looks at the settings and at the servers that run on this machine. With --url it also asks a running
site, by a few real handshakes: it starts nothing and changes nothing. With --proxy it only prints
the configuration for a proxy. The exit status is 1 when something cannot work.
"""


class Command(BaseCommand):
    help = " ".join(_DESCRIPTION.split())
    # The command runs this package's system checks itself, and shows them as findings.
    requires_system_checks: list[str] = []  # noqa: RUF012

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("--url", help="ask a running site: ws://host/path/ or wss://host/path/ of a view")
        add("--header", action="append", default=[], help="send 'Name: value' too, e.g. a cookie")
        add("--origin", action="append", default=[], help="a page's origin that should be allowed")
        add("--cafile", help="trust the certificates in this file")
        add("--timeout", type=float, default=10.0, help="seconds for each step")
        add(
            "--silence",
            type=float,
            default=0.0,
            help="keep a connection silent for so many seconds and see whether it survives",
        )
        add(
            "--proxy-timeout",
            type=float,
            default=60.0,
            help="seconds of silence after which the proxy in front cuts a connection (60: nginx)",
        )
        add(
            "--connections",
            type=int,
            help="how many WebSockets this machine shall hold, over all processes of the server "
            "(default: as many as one process may have, WEBSOCKET_MAX_CONNECTIONS)",
        )
        add("--proxy", choices=sorted(PROXIES), help="print the configuration for a proxy")
        add("--upstream", default="127.0.0.1:8000", help="where the server listens: host:port or "
            "unix:/path (for --proxy)")  # fmt: skip
        add("--listen", default="80", help="where the proxy listens: a port, or address:port")
        add("--json", action="store_true", help="print the findings as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints what was found. Raises ``CommandError`` when something cannot work."""
        for name in ("timeout", "silence", "proxy_timeout"):
            check_number(options, name)
        if options["proxy"]:
            self.stdout.write(snippet(options["proxy"], _site(options)), ending="")
            return
        if options["connections"] is not None:
            check_number(options, "connections", least=1)
        # The site and this machine may give the same finding: show it once.
        findings = list(dict.fromkeys(self._findings(options)))
        wrong = sum(finding.level is Level.ERROR for finding in findings)
        if options["json"]:
            document = {"ok": not wrong, "findings": [dataclasses.asdict(f) for f in findings]}
            self.stdout.write(json.dumps(document, indent=2))
        else:
            for finding in findings:
                self._show(finding)
        if wrong:
            raise CommandError(f"{wrong} of {len(findings)} findings: this cannot work.")

    def _findings(self, options: dict[str, Any]) -> Iterator[Finding]:
        yield from local.examine(options["proxy_timeout"], options["connections"])
        if options["url"]:
            try:
                yield from live.examine(_visit(options))
            except (UnsupportedServer, ValueError) as problem:
                raise CommandError(f"--url: {text_of(problem)}") from None

    def _show(self, finding: Finding) -> None:
        style = {
            Level.FINE: self.style.SUCCESS,
            Level.WARNING: self.style.WARNING,
            Level.ERROR: self.style.ERROR,
        }[finding.level]
        self.stdout.write(f"{style(finding.level.value)} [{finding.id}] {finding.what}")
        if finding.fix:
            self.stdout.write(f"    {finding.fix}")


def _visit(options: dict[str, Any]) -> live.Target:
    url = options["url"]
    # The address of a page is as good.
    url = f"ws{url.removeprefix('http')}" if url.startswith(("http://", "https://")) else url
    try:
        Address.parse(url)
    except ValueError as problem:
        raise CommandError(f"--url: {problem}") from None
    return live.Target(
        url=url,
        headers=dict(map(header_of, options["header"])),
        origins=tuple(options["origin"]),
        proxy_timeout=options["proxy_timeout"],
        silence=options["silence"],
        timeout=options["timeout"],
        ca_file=options["cafile"],
    )


def _check_address(name: str, value: str, form: str) -> None:
    """Raises ``CommandError`` for what is no address, and cannot stand in a configuration."""
    found = re.fullmatch(form, value)
    if found is None or not 0 < int(found["port"] or 1) <= _LAST_PORT:
        raise CommandError(f"--{name}: {value!r} is no address of a server")


def _site(options: dict[str, Any]) -> Site:
    _check_address("upstream", options["upstream"], rf"unix:/[\w./-]+|{_HOST}:{_PORT}")
    _check_address("listen", options["listen"], rf"({_HOST}:)?{_PORT}")
    names = [name.lstrip(".") for name in settings.ALLOWED_HOSTS if name != "*"]
    try:
        interval = conf.get("PING_INTERVAL")
    except ImproperlyConfigured as problem:
        raise CommandError(str(problem)) from None
    return Site(
        name=names[0] if names else "example.com",
        upstream=options["upstream"],
        timeout_s=options["proxy_timeout"],
        interval_s=interval,
        listen=options["listen"],
    )

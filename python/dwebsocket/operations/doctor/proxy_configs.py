"""
The configuration of a proxy in front, for the project's settings.

Each proxy has to pass ``Upgrade`` and ``Connection`` on, keep the browser's ``Host``, report
whether the browser uses TLS, and keep a silent connection open for longer than the ping interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Site:
    """
    The site for which a snippet is written.

    Attributes:
        name: The site's host name.
        upstream: Where the Python server listens: ``host:port`` or ``unix:/path``.
        timeout_s: How long the proxy lets a connection be silent.
        interval_s: ``WEBSOCKET_PING_INTERVAL``.
        listen: Where the proxy listens: a port, or ``address:port``.
    """

    name: str
    upstream: str
    timeout_s: float
    interval_s: float | None
    listen: str = "80"

    @property
    def pings(self) -> str:
        """The interval of the pings in words, for a comment."""
        if self.interval_s is None:
            return "there are no pings: WEBSOCKET_PING_INTERVAL is None"
        return f"a ping goes out every {self.interval_s:g} s"

    @property
    def socket(self) -> str | None:
        """The path of the Unix socket, if it is one."""
        return self.upstream.removeprefix("unix:") if self.upstream.startswith("unix:") else None

    @property
    def timeout(self) -> str:
        """The time without a fraction: in seconds, or else in milliseconds."""
        whole = self.timeout_s == int(self.timeout_s)
        return f"{self.timeout_s:.0f}s" if whole else f"{self.timeout_s * 1000:.0f}ms"


def _nginx(site: Site) -> str:
    return f"""\
# In the http block, e.g. as /etc/nginx/conf.d/{site.name}.conf
map $http_upgrade $connection_upgrade {{
    default upgrade;
    ""      close;
}}

server {{
    listen {site.listen};
    server_name {site.name};

    location / {{
        proxy_pass http://{site.upstream}{":" if site.socket else ""};
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-Proto $scheme;
        # Not what the client itself sent: a site that believes the header would believe the client.
        proxy_set_header X-Forwarded-For $remote_addr;
        # Silence after which nginx cuts a connection; {site.pings}.
        proxy_read_timeout {site.timeout};
        proxy_send_timeout {site.timeout};
    }}
}}
"""


def _caddy(site: Site) -> str:
    upstream = f"unix/{site.socket}" if site.socket else site.upstream
    host, _, port = site.listen.rpartition(":")
    # For the name alone Caddy manages TLS. Another port is for plain HTTP, and for each name.
    address = site.name if site.listen in ("80", "443") else f"http://:{port}"
    bind = f"    bind {host.strip('[]')}\n" if host else ""
    return f"""\
# In the Caddyfile. Caddy gets a certificate, passes Upgrade and Host on, sets X-Forwarded-Proto and
# X-Forwarded-For anew, and lets a connection be silent for as long as it likes ({site.pings}).
{address} {{
{bind}    reverse_proxy {upstream}
}}
"""


def _apache(site: Site) -> str:
    address = site.listen if ":" in site.listen else f"*:{site.listen}"
    backend = f"unix:{site.socket}|http://localhost/" if site.socket else f"http://{site.upstream}/"
    # Twice in all files would be an error.
    listen = f"# If no other file has it: Listen {site.listen}\n"
    own = "" if site.listen in ("80", "443") else listen
    # Apache refuses an address in brackets.
    name = "" if site.name.startswith("[") else f"    ServerName {site.name}\n"
    return f"""\
# Apache 2.4.47 or later; once: a2enmod proxy proxy_http headers
{own}\
<VirtualHost {address}>
{name}\
    ProxyPreserveHost On
    RequestHeader set X-Forwarded-Proto expr=%{{REQUEST_SCHEME}}
    # What the client itself sent; Apache sets it anew.
    RequestHeader unset X-Forwarded-For
    # Silence after which Apache cuts a connection, unless Timeout is longer; {site.pings}.
    ProxyPass "/" "{backend}" upgrade=websocket timeout={site.timeout}
</VirtualHost>
"""


PROXIES: dict[str, Callable[[Site], str]] = {"nginx": _nginx, "caddy": _caddy, "apache": _apache}


def snippet(proxy: str, site: Site) -> str:
    """Returns the configuration for one of :data:`PROXIES`."""
    return PROXIES[proxy](site)

"""
The configuration of a proxy in front, for the project's settings.

What each has to do: pass ``Upgrade`` and ``Connection`` on, keep the ``Host`` of the browser,
tell whether the browser speaks TLS, and be more patient with a silent connection than the ping
interval is long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Site:
    """
    What a snippet is about.

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
        """How often something is on the wire, for a comment."""
        if self.interval_s is None:
            return "there are no pings: WEBSOCKET_PING_INTERVAL is None"
        return f"a ping goes out every {self.interval_s:g} s"

    @property
    def socket(self) -> str | None:
        """The path of the Unix socket, if it is one."""
        return self.upstream.removeprefix("unix:") if self.upstream.startswith("unix:") else None

    @property
    def timeout(self) -> str:
        """The time, for a proxy that knows no fractions."""
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
        # Not what the client itself sent: whoever believes the header believes the client then.
        proxy_set_header X-Forwarded-For $remote_addr;
        # Silence after which nginx cuts a connection; {site.pings}.
        proxy_read_timeout {site.timeout};
        proxy_send_timeout {site.timeout};
    }}
}}
"""


def _caddy(site: Site) -> str:
    upstream = f"unix/{site.socket}" if site.socket else site.upstream
    # With a port it is the address as it is; without, Caddy sees to TLS for the name.
    address = site.name if site.listen == "80" else f"http://{site.listen}"
    return f"""\
# In the Caddyfile. Caddy gets a certificate, passes Upgrade and Host on, sets X-Forwarded-Proto and
# X-Forwarded-For anew, and lets a connection be silent for as long as it likes ({site.pings}).
{address} {{
    reverse_proxy {upstream}
}}
"""


def _apache(site: Site) -> str:
    address = site.listen if ":" in site.listen else f"*:{site.listen}"
    backend = f"unix:{site.socket}|http://localhost/" if site.socket else f"http://{site.upstream}/"
    return f"""\
# Apache 2.4.47 or later; once: a2enmod proxy proxy_http headers
<VirtualHost {address}>
    ServerName {site.name}
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
    """Gives the configuration for one of :data:`PROXIES`."""
    return PROXIES[proxy](site)

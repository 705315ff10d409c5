"""The URL of a WebSocket, in parts, and the HTTP proxy through which its server is reached."""

from __future__ import annotations

import base64
import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from django.utils.encoding import iri_to_uri

# The host, the port, and the value of `Proxy-Authorization`.
Proxy = tuple[str, int, str | None]

_PORTS = {"ws": 80, "wss": 443}


@dataclass(frozen=True)
class Address:
    """
    Where a WebSocket is.

    Attributes:
        secure: Whether by TLS.
        host: A name in ASCII, or an address without brackets.
        port: The port.
        target: Path and query, as in the request line.
        authorization: The value of ``Authorization`` for a user and password in the URL.
    """

    secure: bool
    host: str
    port: int
    target: str
    authorization: str | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """
        Reads a URL.

        Raises:
            TypeError: It is no ``str``.
            ValueError: It has another scheme, no host, an invalid port, or a fragment.
        """
        if not isinstance(url, str):
            raise TypeError(f"a URL must be a str, not {type(url).__name__}")
        try:
            split = urlsplit(url)
            port, host = split.port, split.hostname or ""
            host = host if host.isascii() else host.encode("idna").decode()
        except ValueError:
            raise ValueError(_unreadable(url)) from None
        if split.scheme not in _PORTS or not host:
            forms = " or ".join(f"{kind}://host/path" for kind in _PORTS)
            raise ValueError(f"{shown(url)!r} is no address of a WebSocket: write {forms}")
        if split.fragment:
            raise ValueError(f"{shown(url)!r} has a fragment, which no WebSocket has")
        target = iri_to_uri(split.path or "/")
        if split.query:
            target += f"?{iri_to_uri(split.query)}"
        return cls(
            secure=split.scheme == "wss",
            host=host,
            port=_PORTS[split.scheme] if port is None else port,
            target=target,
            authorization=basic(split.username, split.password),
        )

    @property
    def is_loopback(self) -> bool:
        """Whether the host is ``localhost`` or an address of the loopback interface."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")

    @property
    def netloc(self) -> str:
        """The value of ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_usual = self.port == (443 if self.secure else 80)
        return host if is_usual else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The origin of this host's own pages."""
        return f"{'https' if self.secure else 'http'}://{self.netloc}"


def basic(user: str | None, password: str | None) -> str | None:
    """Returns the value of a header by which a user and password are sent; None without a user."""
    if user is None:
        return None
    pair = f"{unquote(user)}:{unquote(password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def shown(url: str) -> str:
    """Returns a URL for texts: without its user and password, which may hold any character."""
    scheme = re.match(r"\w*:?//|\w+:/", url)
    start = scheme[0] if scheme else ""
    return start + url[len(start) :].rpartition("@")[2]


def _unreadable(url: str) -> str:
    # Python's own text about it may have parts of a password.
    text = f"{shown(url)!r} is no URL: its host or port cannot be read"
    return f"{text}; write / ? # in a password as %2F %3F %23" if "@" in url else text


def proxy_for(address: Address, proxy: object) -> Proxy | None:
    """
    Returns the proxy for a server; None to connect directly.

    Args:
        address: The server's.
        proxy: The URL of a proxy; True for that of the environment (``HTTPS_PROXY`` for ``wss://``,
            ``HTTP_PROXY`` for ``ws://``, else ``ALL_PROXY``; none for hosts in ``NO_PROXY`` and for
            this machine); None or False for none.

    Raises:
        TypeError, ValueError: It is neither, or no address of an HTTP proxy.
    """
    if proxy is None or proxy is False:
        return None
    if proxy is True:
        return _from_environment(address)
    if not isinstance(proxy, str):
        raise TypeError(f"proxy must be a URL, True or None, not {type(proxy).__name__}")
    return _read_proxy(proxy, "proxy")


def _from_environment(address: Address) -> Proxy | None:
    # To a proxy on another machine `localhost` would be the proxy itself.
    if address.is_loopback:
        return None
    proxies = getproxies()
    if proxy_bypass(f"{address.host}:{address.port}"):
        return None
    for kind in ("https" if address.secure else "http", "all"):
        if url := proxies.get(kind):
            return _read_proxy(url, f"{kind.upper()}_PROXY")
    return None


def _read_proxy(url: str, source: str) -> Proxy:
    # As for curl: a bare host and port are those of an HTTP proxy.
    whole = url if "://" in url else f"http://{url}"
    try:
        split = urlsplit(whole)
        host, port = split.hostname, split.port
    except ValueError:
        raise ValueError(f"{source}: {_unreadable(url)}") from None
    if split.scheme != "http" or not host:
        raise ValueError(
            f"{source}: {shown(url)!r} is no address of an HTTP proxy: write http://host:port, "
            "or use proxy=None to connect directly"
        )
    return host, 80 if port is None else port, basic(split.username, split.password)

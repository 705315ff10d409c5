"""The HTTP proxy through which a server is reached, from an argument or the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from dwebsocket.client.address import basic, shown

if TYPE_CHECKING:
    from dwebsocket.client.address import Address

    # The host, the port, and the value of `Proxy-Authorization`.
    Proxy = tuple[str, int, str | None]


def find(address: Address, proxy: object) -> Proxy | None:
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
    return _read(proxy, "proxy")


def _from_environment(address: Address) -> Proxy | None:
    # To a proxy on another machine `localhost` would be the proxy itself.
    if address.is_loopback:
        return None
    proxies = getproxies()
    if proxy_bypass(f"{address.host}:{address.port}"):
        return None
    for kind in ("https" if address.secure else "http", "all"):
        if url := proxies.get(kind):
            return _read(url, f"{kind.upper()}_PROXY")
    return None


def _read(url: str, source: str) -> Proxy:
    # As for curl: a bare host and port are those of an HTTP proxy.
    whole = url if "://" in url else f"http://{url}"
    try:
        split = urlsplit(whole)
        host, port = split.hostname, split.port
    except ValueError as error:
        raise ValueError(f"{source}: {shown(url)!r} is no URL: {error}") from None
    if split.scheme != "http" or not host:
        raise ValueError(
            f"{source}: {shown(url)!r} is no address of an HTTP proxy: write http://host:port, "
            "or use proxy=None to connect directly"
        )
    return host, 80 if port is None else port, basic(split.username, split.password)

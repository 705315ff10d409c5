"""The URL of a WebSocket, in parts."""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from django.utils.encoding import iri_to_uri

_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443}


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
    def parse(cls, url: str, kinds: tuple[str, ...] = ("ws", "wss")) -> Address:
        """
        Reads a URL.

        Args:
            url: The URL.
            kinds: The schemes that it may have.

        Raises:
            TypeError: It is no ``str``.
            ValueError: It has no such scheme, no host, an invalid port, or a fragment.
        """
        if not isinstance(url, str):
            raise TypeError(f"a URL must be a str, not {type(url).__name__}")
        try:
            split = urlsplit(url)
            port, host = split.port, split.hostname or ""
            host = host if host.isascii() else host.encode("idna").decode()
        except ValueError as error:
            raise ValueError(f"{shown(url)!r} is no URL: {error}") from None
        if split.scheme not in kinds or not host:
            forms = " or ".join(f"{kind}://host/path" for kind in kinds)
            raise ValueError(f"{shown(url)!r} is no address of a WebSocket: write {forms}")
        if split.fragment:
            raise ValueError(f"{shown(url)!r} has a fragment, which no WebSocket has")
        target = iri_to_uri(split.path or "/")
        if split.query:
            target += f"?{iri_to_uri(split.query)}"
        return cls(
            secure=split.scheme in ("wss", "https"),
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
    """Returns a URL for texts: without its user and password."""
    start, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{start}{separator}{authority.rpartition('@')[2]}{slash}{path}"

"""``LOCATION`` of the redis backend: the addresses of servers, and how to log in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dwebsocket._core import RedisCertificates

_DEFAULT_PORT = 6379
_SENTINELS_PORT = 26379
_SCHEMES = {
    "redis": "single",
    "redis+cluster": "cluster",
    "redis+sentinel": "sentinel",
    "rediss": "single",
    "rediss+cluster": "cluster",
    "rediss+sentinel": "sentinel",
    "redis+unix": "single",
    "unix": "single",
}
_EXAMPLE = "such as redis://127.0.0.1:6379/0"
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS = ("sentinel_username", "sentinel_password", "ssl_cert_reqs", *_FILES)


class Server(NamedTuple):
    """
    A server, or several that belong together.

    Attributes:
        kind: ``single``, ``cluster`` or ``sentinel``.
        nodes: Hosts and ports; the path of a Unix socket and None.
        database: The number of the database.
        username: The user, None for the default one.
        password: Its password, if it has one.
        service: The name of the service that sentinels look after.
        is_encrypted: Whether connections use TLS.
    """

    kind: str
    nodes: tuple[tuple[str, int | None], ...]
    database: int = 0
    username: str | None = None
    password: str | None = None
    service: str | None = None
    is_encrypted: bool = False

    def __str__(self) -> str:
        """Returns the address without the password."""
        nodes = ",".join(_shown(*node) for node in self.nodes)
        if self.nodes[0][1] is None:
            return f"unix://{nodes}" + (f"?db={self.database}" if self.database else "")
        scheme = "rediss" if self.is_encrypted else "redis"
        if self.kind != "single":
            scheme += f"+{self.kind}"
        path = f"/{self.service}" if self.service else ""
        return f"{scheme}://{nodes}{path}/{self.database}"


def _shown(host: str, port: int | None) -> str:
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read(location: Iterable[str], options: Mapping[str, Any]) -> list[Server]:
    """
    Returns the servers of ``LOCATION``.

    Raises:
        ValueError: An address or an option that is not valid. The text has no password.
    """
    servers = [_read(address) for address in location]
    if not servers:
        raise ValueError(f"['LOCATION'] needs the address of a server, {_EXAMPLE}")
    for name, value in options.items():
        if name not in _OPTIONS:
            known = ", ".join(_OPTIONS)
            raise ValueError(f"['OPTIONS'] has the unknown key {name!r}: known are {known}")
        if name == "ssl_cert_reqs":
            if value not in (None, "none", "required"):
                raise ValueError(f"['OPTIONS'][{name!r}] must be 'required' or None")
        elif not isinstance(value, (str, os.PathLike)):
            raise ValueError(f"['OPTIONS'][{name!r}] must be a str")
    if ("ssl_keyfile" in options) > ("ssl_certfile" in options):
        raise ValueError("['OPTIONS'] has ssl_keyfile without ssl_certfile")
    return servers


def read_certificates(options: Mapping[str, Any]) -> RedisCertificates:
    """
    Returns the certificates for TLS: the contents of the files of ``OPTIONS``.

    Raises:
        ValueError: A file cannot be read.
    """
    files = {}
    for name in _FILES:
        if name in options:
            try:
                files[name] = Path(options[name]).read_bytes()
            except OSError as error:
                raise ValueError(f"['OPTIONS'][{name!r}] cannot be read: {error}") from None
    own = None
    if (chain := files.get("ssl_certfile")) is not None:
        # Without a file for the key it is in that of the certificate.
        own = (chain, files.get("ssl_keyfile", chain))
    return {
        # None for those of the system.
        "authorities": files.get("ssl_ca_certs"),
        "own": own,
        "is_unverified": options.get("ssl_cert_reqs", "required") in (None, "none"),
    }


def _read(address: str) -> Server:
    scheme = address.partition("://")[0] if "://" in address else ""
    kind = _SCHEMES.get(scheme)
    if kind is None:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise ValueError(f"['LOCATION'] must begin with one of {known}, {_EXAMPLE}")
    try:
        return _read_parts(kind, address, scheme)
    except ValueError as error:
        # Without the address, which may have a password in it.
        raise ValueError(f"['LOCATION'] has a {scheme}:// address that {error}") from None


def _read_parts(kind: str, address: str, scheme: str) -> Server:
    try:
        parts = urlsplit(address)
        arguments = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        # The text of the error may have the password in it.
        raise ValueError("cannot be read") from None
    if parts.fragment:
        raise ValueError("has a fragment: write # in a password as %23")
    login, _, hosts = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    path = [unquote(part) for part in parts.path.split("/")[1:]]
    database, service = arguments.pop("db", None), None
    if arguments:
        raise ValueError(f"has the unknown parameter {next(iter(arguments))!r}: known is db")
    if scheme.endswith("unix"):
        if hosts or not parts.path.strip("/"):
            raise ValueError("needs the path of a socket, as in unix:///run/redis.sock?db=0")
        nodes: tuple[tuple[str, int | None], ...] = ((unquote(parts.path), None),)
    else:
        default = _SENTINELS_PORT if kind == "sentinel" else _DEFAULT_PORT
        nodes = tuple(_node(host, default) for host in hosts.split(","))
        if kind == "single" and len(nodes) > 1:
            raise ValueError("names several servers: make LOCATION a list of addresses")
        if kind == "sentinel":
            if not path or not (service := path.pop(0)):
                raise ValueError("names no service: redis+sentinel://host:port/service/0")
        if path and path[0]:
            if database is not None:
                raise ValueError("names the database twice")
            database = path[0]
        if len(path) > 1:
            raise ValueError("has more parts than a database")
    number = _number("database", database or "0")
    if kind == "cluster" and number:
        raise ValueError("names a database: a cluster has only 0")
    return Server(
        kind,
        nodes,
        number,
        unquote(username) or None,
        unquote(password) or None,
        service,
        scheme.startswith("rediss"),
    )


def _node(text: str, default: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, ""
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    number = _number("port", port) if port else default
    if not 0 < number < 65536:
        raise ValueError(f"has the port {number}")
    return host, number


def _number(what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"has a {what} that is no number")
    return int(text)

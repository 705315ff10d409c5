"""The options of :func:`dwebsocket.connect`: read, checked, and as the engine takes them."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypedDict, TypeVar, Union

from dwebsocket import _core
from dwebsocket.client.address import Address, proxy_for, shown

T = TypeVar("T")
#: A value, or a function that returns it anew for each attempt. :func:`dwebsocket.aconnect` takes
#: async functions, too.
Given: TypeAlias = Union[T, Callable[[], Union[T, Awaitable[T]]]]  # noqa: UP007

# The same as for connections that clients open.
_COMPRESSION = (256, 3)
_MAX_FRAGMENTS = 80_000
# The engine writes them itself, or leaves them out: see `OWN_HEADERS` of the engine.
_OWN_HEADERS = frozenset(
    {
        *("connection", "content-encoding", "content-language", "content-length"),
        *("content-range", "content-type", "keep-alive", "proxy-connection", "te", "trailer"),
        *("transfer-encoding", "upgrade"),
    }
)
# Stands for one that is not known yet while the options are checked.
_ANY_URL = "ws://localhost/"


class ConnectOptions(TypedDict, total=False):
    """
    The options of :func:`dwebsocket.connect`. Times are in seconds; None is for ever.

    Attributes:
        subprotocols: Subprotocols to offer, the best first; None offers none. Or a function that
            gives them for each attempt.
        headers: Headers to send: a mapping, or pairs. ``Cookie`` is one of them. Those of the
            handshake itself, and of a body, are refused. Or a function that returns them for each
            attempt.
        origin: The value of ``Origin``, as of a page of this origin.
        open_timeout: For all of the opening: name, network, proxy, TLS and handshake. 10 by
            default.
        ping_interval: Between two pings; None sends none. 25 by default.
        ping_timeout: Silence after a ping that means that the connection is lost. 20 by default.
        send_timeout: How long a sending call waits for a server that reads slowly. 10 by default.
        close_timeout: How long the server has to answer a close. 2 by default.
        max_message_size: Bytes of the largest message taken, after decompression; a larger one
            ends the connection with 1009. 16 MiB by default.
        receive_buffer: Bytes that may wait to be received; then the engine stops reading. 1 MiB by
            default.
        send_buffer: Bytes that may wait to be sent. 1 MiB by default.
        compression: Whether permessage-deflate is offered. True by default.
        ca_file: Trust the certificates in this file (PEM), not those of the system. A server's
            own certificate may stand in it, too.
        verify: Whether the server's certificate is verified. True by default; False only for tests.
        client_cert: The own certificate: a file with certificate and key, or a pair of files.
        server_hostname: The name that the server's certificate has to have, if not the URL's.
        proxy: The URL of an HTTP proxy; True (the default) for that of the environment, but for
            servers on this machine; None for none.
    """

    subprotocols: Given[Iterable[str] | None]
    headers: Given[Mapping[str, str] | Iterable[tuple[str, str]] | None]
    origin: str | None
    open_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    send_timeout: float | None
    close_timeout: float
    max_message_size: int
    receive_buffer: int
    send_buffer: int
    compression: bool
    ca_file: str | Path | None
    verify: bool
    client_cert: str | Path | tuple[str | Path, str | Path] | None
    server_hostname: str | None
    proxy: str | bool | None


_DEFAULTS: ConnectOptions = {
    "subprotocols": None,
    "headers": None,
    "origin": None,
    "open_timeout": 10,
    "ping_interval": 25,
    "ping_timeout": 20,
    "send_timeout": 10,
    "close_timeout": 2,
    "max_message_size": 16 * 1024 * 1024,
    "receive_buffer": 1024 * 1024,
    "send_buffer": 1024 * 1024,
    "compression": True,
    "ca_file": None,
    "verify": True,
    "client_cert": None,
    "server_hostname": None,
    "proxy": True,
}


class Dialer(NamedTuple):
    """Opens connections to one server, each in the same way. Any thread may use it."""

    core: _core.Dialer
    send_timeout: float | None


class Target:
    """
    A server, and how to connect to it. Any thread, green thread or task may use it.

    Functions among the URL and the options are called for each attempt.

    Args:
        url: The URL, or a function that returns it.
        given: The options. Headers and subprotocols may be functions.

    Raises:
        TypeError, ValueError: One of them is invalid; the text names it. Of what functions give
            this is raised when they are called.
    """

    def __init__(self, url: Given[str], given: ConnectOptions) -> None:
        self._given: dict[str, Any] = {"url": url, **given}
        self._functions: dict[str, Callable[[], Any]] = {}
        unknown: dict[str, str | None] = {}
        for name in ("url", "subprotocols", "headers"):
            value = self._given.get(name)
            if callable(value):
                self._functions[name] = value
                unknown[name] = _ANY_URL if name == "url" else None
            elif isinstance(value, Iterator):
                # It is read for each attempt.
                self._given[name] = list(value)
        # Values that are no functions are checked now.
        made = self._made(unknown)
        self._made_once = None if self._functions else made

    def __str__(self) -> str:
        """Returns the URL for logs, without its secrets."""
        url = self._given["url"]
        return shown(url).partition("?")[0] if isinstance(url, str) else repr(url)

    def now(self) -> tuple[str, Dialer]:
        """
        Returns the URL and the dialer for one attempt.

        Raises:
            TypeError, ValueError: A function has given something invalid, or is async.
            Exception: Any that a function raises.
        """
        if self._made_once is not None:
            return self._made_once
        values = {}
        for name, function in self._functions.items():
            values[name] = value = function()
            if inspect.isawaitable(value):
                if inspect.iscoroutine(value):
                    # Else Python warns that nothing has awaited it.
                    value.close()
                raise TypeError(f"{name} is async: only aconnect() awaits it")
        return self._made(values)

    async def soon(self) -> tuple[str, Dialer]:
        """Returns what :meth:`now` does, for async code: functions may be async."""
        if self._made_once is not None:
            return self._made_once
        values = {}
        for name, function in self._functions.items():
            value = function()
            values[name] = await value if inspect.isawaitable(value) else value
        return self._made(values)

    def _made(self, values: dict[str, Any]) -> tuple[str, Dialer]:
        options: Any = {**self._given, **values}
        url = options.pop("url")
        return url, dialer_for(url, options)


def dialer_for(url: str, given: ConnectOptions) -> Dialer:
    """
    Reads a URL and options, none of which is a function.

    Raises:
        TypeError, ValueError: One of them is invalid; the text names it.
    """
    if unknown := sorted(given.keys() - _DEFAULTS.keys()):
        raise TypeError(f"connect() has no option {unknown[0]!r}: it takes {', '.join(_DEFAULTS)}")
    options: ConnectOptions = {**_DEFAULTS, **given}
    address = Address.parse(url)
    core = _core.Dialer(
        (address.host, address.port),
        address.target,
        headers=_headers(address, options),
        subprotocols=_subprotocols(options["subprotocols"]),
        compression=_COMPRESSION if check_flag("compression", options["compression"]) else None,
        settings=_settings(options),
        timeout=_time("open_timeout", options["open_timeout"]),
        tls=_tls(options, is_used=address.secure),
        server_name=_text("server_hostname", options["server_hostname"]),
        proxy=proxy_for(address, options["proxy"]),
    )
    return Dialer(core, options["send_timeout"])


def _headers(address: Address, options: ConnectOptions) -> list[tuple[str, str]]:
    pairs = _pairs(options["headers"])
    origin = _text("origin", options["origin"])
    own = {"Host": address.netloc, "Authorization": address.authorization}
    if origin is not None:
        own["Origin"] = origin
    named = {name.lower() for name, _ in pairs}
    usual = [(name, value) for name, value in own.items() if value and name.lower() not in named]
    return usual + pairs


def _pairs(headers: Any) -> list[tuple[str, str]]:
    if headers is None:
        return []
    given = headers.items() if isinstance(headers, Mapping) else headers
    pairs = [*given] if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    for pair in pairs:
        is_pair = isinstance(pair, (tuple, list)) and len(pair) == 2
        if not is_pair or not all(isinstance(part, str) for part in pair):
            # A value may be a secret: none is shown.
            raise TypeError("headers must be a mapping of str to str, or pairs of str, or None")
        if (name := pair[0].lower()) in _OWN_HEADERS or name.startswith("sec-websocket-"):
            raise ValueError(f"headers: connect() writes {pair[0]!r} itself, or sends none")
    return [(name, value) for name, value in pairs]


def _subprotocols(names: Any) -> list[str]:
    if names is None:
        return []
    if isinstance(names, str):
        raise TypeError(f"subprotocols must be several names, not {names!r}: write [{names!r}]")
    found = [*names] if isinstance(names, Iterable) else [names]
    if not all(isinstance(name, str) for name in found):
        raise TypeError(f"subprotocols must be several names, each a str, or None, not {names!r}")
    return found


def _settings(options: ConnectOptions) -> _core.Settings:
    return _core.Settings(
        max_message_bytes=_size("max_message_size", options["max_message_size"]),
        max_frame_bytes=None,
        max_fragments=_MAX_FRAGMENTS,
        messages_per_second=None,
        bytes_per_second=None,
        rate_timeout=None,
        ping_interval=_time("ping_interval", options["ping_interval"]),
        ping_timeout=_time("ping_timeout", options["ping_timeout"]),
        receive_buffer_bytes=_size("receive_buffer", options["receive_buffer"]),
        send_buffer_bytes=_size("send_buffer", options["send_buffer"]),
        send_timeout=_time("send_timeout", options["send_timeout"]),
        close_timeout=_time("close_timeout", options["close_timeout"]) or 0.0,
    )


def _tls(options: ConnectOptions, *, is_used: bool) -> _core.Tls | None:
    """Returns the settings of TLS. Where none is used they are checked, but no file is read."""
    is_unverified = not check_flag("verify", options["verify"])
    authorities = _path("ca_file", options["ca_file"])
    files = _pair_of_paths("client_cert", options["client_cert"])
    if not is_used:
        return None
    trusted = None if authorities is None else _contents("ca_file", authorities)
    with _naming("" if trusted is None else "ca_file"):
        tls = _shared_tls(trusted, is_unverified)
    if files is None:
        return tls
    chain, key = (_contents("client_cert", path) for path in files)
    with _naming("client_cert"):
        return _core.Tls(
            {"authorities": trusted, "own": (chain, key), "is_unverified": is_unverified}
        )


# The system's certificates are some hundred, and take milliseconds to read. Connections that share
# their settings can also resume each other's sessions, which saves a part of the handshake.
@functools.lru_cache(maxsize=16)
def _shared_tls(trusted: bytes | None, is_unverified: bool) -> _core.Tls:  # noqa: FBT001
    return _core.Tls({"authorities": trusted, "own": None, "is_unverified": is_unverified})


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Puts the name of an option before the text of a ``ValueError``."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}" if name else str(error)) from None


def _contents(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None


def _path(name: str, value: Any) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be the path of a file or None, not {value!r}")
    return Path(value)


def _pair_of_paths(name: str, value: Any) -> tuple[Path, Path] | None:
    if value is None:
        return None
    first, second = value if isinstance(value, tuple) and len(value) == 2 else (value, value)
    if not isinstance(first, (str, os.PathLike)) or not isinstance(second, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, a pair of paths or None, not {value!r}")
    return Path(first), Path(second)


def check_flag(name: str, value: Any) -> bool:
    """Returns a flag. Raises ``TypeError`` for anything but a ``bool``."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def _text(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a str or None, not {value!r}")
    return value


def _time(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError(f"{name} must be a number of seconds or None, not {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number of seconds or None, not {value!r}") from None


def _size(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**62:
        raise ValueError(f"{name} must be a number of bytes, 1 or more, not {value!r}")
    return value

"""
Every setting of dwebsocket: its name, its default, and its valid values.

Settings are read when they are first used, and again whenever they have changed, in whatever way:
by ``override_settings``, by an assignment to ``settings``, or within a list or dict. Times are
seconds (int or float), sizes are bytes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from ipaddress import IPv6Address
from operator import is_, itemgetter
from types import ModuleType, SimpleNamespace
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from dwebsocket import _core
from dwebsocket.compat.django import settings_source
from dwebsocket.conf import group_settings, memory, values
from dwebsocket.conf.values import boolean, expected, number, or_none, whole

PREFIX = "WEBSOCKET_"

_LEAST_TOKEN = 16

#: The values of WEBSOCKET_FACTORY_CLASS that mean the default: the original's classes.
DEFAULT_FACTORIES = (
    "dwebsocket.factory.WebSocketFactory",
    "dwebsocket.backends.default.factory.WebSocketFactory",
    "dwebsocket.backends.uwsgi.factory.uWsgiWebSocketFactory",
)

#: Origins without a host, and what stands for every origin.
SPECIAL_ORIGINS = ("*", "null", "file://")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LAST_PORT = 65535
# In host names: the characters that Django allows in Host, and the underscore, which DNS does not
# allow.
_SERIALISED = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::(0|[1-9][0-9]{0,4}))?", re.ASCII
)

# Settings of Django's on which cached values depend, beside the settings here.
_OTHERS = ("DEBUG", "USE_X_FORWARDED_HOST")


@dataclass(frozen=True)
class Setting:
    """
    One setting.

    Attributes:
        default: Its value when the project sets none.
        read: Returns the value in the form in which the code uses it, or raises ``ValueError``,
            whose message names the valid values.
    """

    default: Any
    read: Callable[[Any], Any]


def _token(value: object) -> str:
    # A short one could be guessed. The message must not show it.
    if not isinstance(value, str) or not (value == "" or len(value) >= _LEAST_TOKEN):
        raise ValueError(f"must be a str of {_LEAST_TOKEN} characters or more, or empty")
    return value


def _part_of_memory(value: object) -> int:
    if isinstance(value, float) and 0 < value < 1:
        return max(1, int(memory.limit() * value))
    return _size(value)


def _stack_size(value: object) -> int:
    size = _size(value)
    if size < 64 * 1024:
        raise expected("65536 bytes or more", value)
    return size


_boolean_or_none = or_none(boolean, "True, False or None")
_size = whole(1, 2**62 - 1, "a number of bytes, 1 or more")
_size_or_none = or_none(_size, "a number of bytes, 1 or more, or None for no limit")
_buffered = or_none(
    _part_of_memory,
    "a number of bytes, a part of the memory (above 0, below 1), or None for no limit",
)
_count = whole(1, 2**32 - 1, "a whole number, 1 or more")
_count_or_none = or_none(whole(0, 2**62 - 1, ""), "a whole number, or None for no limit")
_few = whole(1, 64, "a whole number from 1 to 64")
_threads = whole(1, 1024, "a whole number from 1 to 1024")
_rate = number(lambda value: 0.001 <= value < 1e12, "a number above 0")
_rate_or_none = or_none(_rate, "a number above 0, or None for no limit")
_seconds = number(lambda value: 0 < value < 1e9, "a number of seconds above 0")
_seconds_or_none = or_none(_seconds, "a number of seconds above 0, or None")
_seconds_or_zero = number(lambda value: 0 <= value < 1e9, "a number of seconds, 0 or more")


def _text_type(value: object) -> type[str | bytes]:
    if value in ("str", str):
        return str
    if value in ("bytes", bytes):
        return bytes
    raise expected('"bytes" or "str"', value)


def _strings(value: object, what: str) -> tuple[str, ...]:
    # An iterator is no list: it is empty when it is read again.
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Collection):
        raise expected(f"a list of {what}", value)
    items = tuple(value)
    for item in items:
        if not isinstance(item, str):
            raise expected(f"a list of {what}", value)
    return items


def _subprotocols(value: object) -> tuple[str, ...]:
    names = _strings(value, "subprotocol names")
    for name in names:
        if not _core.is_token(name):
            raise ValueError(
                f"has {name!r}, which is no subprotocol name: use letters, digits and -._ only"
            )
    return names


def parts_of_origin(origin: str) -> tuple[str, str, int | None] | None:
    """
    Returns scheme, host and port of an origin in lower case, None for everything else.

    Only what RFC 6454 section 6.2 lets a browser write: ``scheme://host`` or
    ``scheme://host:port``. Parsers of URLs are more lenient, and differ on what they take for the
    host.
    """
    found = _SERIALISED.fullmatch(origin)
    if found is None:
        return None
    scheme, host, digits = found.groups()
    if host.startswith("["):
        try:
            IPv6Address(host[1:-1])
        except ValueError:
            return None
    port = _DEFAULT_PORTS.get(scheme) if digits is None else int(digits)
    return None if port is not None and port > _LAST_PORT else (scheme, host, port)


def _origins(value: object) -> tuple[str, ...]:
    origins = _strings(value, 'origins such as "https://example.com"')
    for origin in origins:
        if origin not in ("*", "null") and "://" not in origin:
            raise ValueError(
                f'has {origin!r}, which is no origin: write "https://{origin}", with the scheme '
                'and without a path ("*" allows every origin, "null" the opaque one, "file://" '
                "that of files)"
            )
        if origin.count("/") > 2:
            raise ValueError(f"has {origin!r}: an origin has no path and no slash at its end")
    return tuple(origin.lower() for origin in origins)


@dataclass(frozen=True)
class Compression:
    """
    How messages are compressed. The names of RFC 7692 mean what they mean there.

    Attributes:
        threshold: Messages of fewer bytes go out as they are. Measured with JSON: below the default
            a quarter is gained at most, and never a packet on the wire.
        level: From 1, the quickest, to 9, the smallest. Measured likewise: the default takes half
            the time of 6 and gives 5 % more bytes.
        server_no_context_takeover: The server compresses each message alone.
        client_no_context_takeover: The client must do the same.
        server_max_window_bits: The server's window is 2 to this power, in bytes.
        client_max_window_bits: The largest window that the client may use, likewise.
    """

    threshold: int = 256
    level: int = 3
    server_no_context_takeover: bool = True
    client_no_context_takeover: bool = True
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15

    def negotiate(self, offers: str) -> _core.Compression | None:
        """Returns the parameters for a client that sends ``offers`` in Sec-WebSocket-Extensions."""
        return _core.Compression.negotiate(offers, **vars(self))


_WINDOW = whole(9, 15, "a whole number, 9 to 15")
_OF_COMPRESSION = {
    "threshold": whole(0, 2**62, "a whole number, 0 or more"),
    "level": whole(1, 9, "a whole number, 1 to 9"),
    "server_no_context_takeover": boolean,
    "client_no_context_takeover": boolean,
    "server_max_window_bits": _WINDOW,
    "client_max_window_bits": _WINDOW,
}


def _compression(value: object) -> Compression | None:
    if isinstance(value, bool):
        return Compression() if value else None
    what = "True, False, or a dict of options"
    return Compression(**values.fields(value, _OF_COMPRESSION, what))


def _dotted_path(value: object, what: str = "class") -> str | None:
    if value is None or (isinstance(value, str) and "." in value):
        return value
    raise expected(f"the dotted path of a {what}", value)


def _factory_path(value: object) -> str | None:
    path = _dotted_path(value)
    if path is None or path in DEFAULT_FACTORIES:
        return path
    try:
        found = import_string(path)
    except ImportError:
        # Another check reports it, with Python's reason.
        return path
    needed = ("is_websocket", "create_websocket")
    if not (isinstance(found, type) and all(hasattr(found, name) for name in needed)):
        raise ValueError(
            f"is {path!r}, which is no class with is_websocket() and create_websocket()"
        )
    return path


def _function(value: object) -> Callable[..., Any] | None:
    if (path := _dotted_path(value, "function")) is None:
        return None
    try:
        found = import_string(path)
    except ImportError as error:
        raise ValueError(f"is {value!r}, which cannot be imported: {error}") from None
    if not callable(found):
        raise ValueError(f"is {value!r}, which cannot be called")
    function: Callable[..., Any] = found
    return function


SETTINGS: dict[str, Setting] = {
    # Every view may get WebSockets (with the middleware), decorated or not.
    "ACCEPT_ALL": Setting(default=False, read=boolean),
    # The class that decides whether a request is a WebSocket and makes `request.websocket`.
    "FACTORY_CLASS": Setting(None, _factory_path),
    # The type of text messages in `wait`, `read` and iteration: "bytes" as in the original, or
    # "str".
    "TEXT_TYPE": Setting("bytes", _text_type),
    # Origins that may connect, besides the site's own and CSRF_TRUSTED_ORIGINS.
    "ALLOWED_ORIGINS": Setting((), _origins),
    # Whether a client must send an Origin, as browsers do. By default programs need not.
    "REQUIRE_ORIGIN": Setting(default=False, read=boolean),
    # Subprotocols that the site speaks, the best first.
    "SUBPROTOCOLS": Setting((), _subprotocols),
    # Whether clients without WebSockets may use server-sent events and POST at the same URL.
    "FALLBACK": Setting(default=False, read=boolean),
    # Whether and how messages are compressed for clients that offer it.
    "COMPRESSION": Setting(default=True, read=_compression),
    # The largest message taken; a larger one ends the connection with 1009.
    "MAX_MESSAGE_SIZE": Setting(16 * 1024 * 1024, _size),
    # The largest frame taken; a larger one ends the connection with 1009.
    "MAX_FRAME_SIZE": Setting(None, _size_or_none),
    # Frames of one message. Empty ones cost no bytes, hence a limit of their own.
    "MAX_FRAGMENTS": Setting(80_000, _count),
    # Bytes that may wait for a view that reads slowly; then nothing more is read from the client.
    # A flood of small messages costs more than their bytes, so 1,024 messages fill it, too.
    "RECEIVE_BUFFER": Setting(1024 * 1024, _size),
    # Bytes that a process may buffer for all of its WebSockets, or a fraction of the memory. At the
    # limit the largest holders are closed with 1013. An eighth, since a site usually has several
    # processes, and the objects that views make of a message take memory, too.
    "MAX_BUFFERED": Setting(0.125, _buffered),
    # Connections of one process; one more is refused with 503.
    "MAX_CONNECTIONS": Setting(10_000, _count_or_none),
    # Connections of one client address; one more is refused with 429. None by default: behind a
    # proxy all clients have the proxy's.
    "MAX_CONNECTIONS_PER_ADDRESS": Setting(None, _count_or_none),
    # Connections of one signed-in user; one more is refused with 429.
    "MAX_CONNECTIONS_PER_USER": Setting(100, _count_or_none),
    # Time after which the user of each open WebSocket is looked up again: the user may be signed
    # out by then. 0 is never.
    "AUTH_RECHECK": Setting(300, _seconds_or_zero),
    # Messages that one client may send a second. None by default: a client that is faster than
    # its view is slowed down anyway.
    "MAX_MESSAGES_PER_SECOND": Setting(None, _rate_or_none),
    # Bytes that one client may send a second.
    "MAX_BYTES_PER_SECOND": Setting(None, _rate_or_none),
    # How long a client may go on trying to send faster than that; then it is closed with 1008.
    "RATE_TIMEOUT": Setting(10, _seconds_or_none),
    # Time between two pings, below the 60 s after which proxies cut a silent connection.
    "PING_INTERVAL": Setting(25, _seconds_or_none),
    # Silence after a ping, after which the client counts as gone.
    "PING_TIMEOUT": Setting(20, _seconds_or_none),
    # Bytes that may wait for a client that reads slowly.
    "SEND_BUFFER": Setting(1024 * 1024, _size),
    # How long `send` in the connection's own view waits for room in that buffer.
    "SEND_TIMEOUT": Setting(10, _seconds_or_none),
    # How long a message that has begun may make no progress; then the client is closed with 1008.
    "MESSAGE_TIMEOUT": Setting(60, _seconds_or_none),
    # How long the client has to answer a close frame, and then to hang up.
    "CLOSE_TIMEOUT": Setting(2, _seconds),
    # Bytes of a handshake's path and headers; a larger one is refused with 431. More than the four
    # headers of 8 KiB that nginx lets through, with room for what a proxy adds.
    "MAX_HANDSHAKE_SIZE": Setting(48 * 1024, _size_or_none),
    # How long a view with `accept=False` may take to decide; then the client is refused with 503.
    # Browsers and proxies wait about a minute for the answer, and a thread of the server as long.
    "HANDSHAKE_TIMEOUT": Setting(30, _seconds_or_none),
    # Time over which a process that ends closes its connections, so that clients do not all
    # reconnect at once. 0 by default: it delays the end of the process, which is harmful where no
    # other process serves meanwhile (a restart, the only worker), and not all such cases can be
    # detected.
    "DRAIN": Setting(0, _seconds_or_zero),
    # Whether connections of handlers that survive move to another process.
    "HANDOVER": Setting(default=True, read=boolean),
    # Returns a context manager for a request: entered around all that runs for its connection.
    "CONTEXT": Setting(None, _function),
    # Names the world in which the key of a request's user means this user.
    "REALM": Setting(None, _function),
    # The backends of groups, by their aliases.
    "GROUPS": Setting({}, group_settings.read),
    # Bytes that the history of all groups of a backend may take; the oldest groups go first.
    "MAX_HISTORY": Setting(64 * 1024 * 1024, _size),
    # Rooms that one connection may be in.
    "MAX_ROOMS": Setting(100, _count),
    # Joins that one connection may make a second, and events that it may send.
    "ROOMS_RATE": Setting(20, _rate),
    # How many of them at once.
    "ROOMS_BURST": Setting(60, _count),
    # Bytes that a client may say about itself in a room.
    "MAX_ROOM_INFO": Setting(1024, _size),
    # Bytes of a client's event.
    "MAX_ROOM_EVENT": Setting(64 * 1024, _size),
    # Members that are named in the answer to a join.
    "MAX_ROOM_MEMBERS": Setting(100, _count),
    # Whether the process answers the site's other processes when these ask for its statistics; None
    # for whether "dwebsocket" is in INSTALLED_APPS, without which there is no page and no command.
    "OPERATIONS": Setting(None, _boolean_or_none),
    # The secret with which metrics may be read; empty for users with the permission only.
    "METRICS_TOKEN": Setting("", _token),
    # Threads of the engine in each process. One reads faster than views under one GIL can answer.
    "ENGINE_THREADS": Setting(1, _few),
    # Threads on which the sync methods of handlers run, in each process.
    "HANDLER_THREADS": Setting(16, _threads),
    # Threads for the sync code of Channels' consumers, in each process. One, as asgiref has it.
    "CHANNELS_THREADS": Setting(1, _threads),
    # Stack of a view's thread. It is address space: only what a view touches becomes memory. Less
    # is dangerous: on CPython 3.13, deeply nested JSON from a client overflows 1 MiB and with it
    # the process, before Python's own limit stops it.
    "THREAD_STACK_SIZE": Setting(4 * 1024 * 1024, _stack_size),
}


def read(name: str, value: object) -> Any:
    """
    Returns ``value`` as the setting ``name`` (without prefix) would be used.

    Raises:
        ValueError: It cannot be; the message says what it must be.
    """
    return SETTINGS[name].read(value)


class _Known:
    """
    A cache of settings that were read: settings by name, options by a view's overrides, and more.

    Reading a setting that the project does not define is slow, and a handshake needs two dozen.
    Checking that nothing has changed since takes less than a microsecond.

    Attributes:
        source: The object behind ``django.conf.settings`` from which all of it was read.
        found: The cached values.
    """

    __slots__ = ("_layers", "found", "source")

    def __init__(self, source: Any) -> None:
        self.source = source
        self.found: dict[Any, Any] = {}
        self._layers = [*_layers(source)]

    def is_true_of(self, source: Any) -> bool:
        """
        Whether ``source`` is where it was read from, and nothing has changed there.

        Values are compared by identity (``True`` is not 1 here), and lists by what they hold, too.
        """
        if source is not self.source:
            return False
        # One loop without generators, and no lookup of names that are not there: this runs for
        # each handshake.
        try:
            for names, size, last, read_all, values, copies in self._layers:
                if len(names) != size or next(reversed(names), None) != last:
                    return False
                if read_all is not None and not all(map(is_, read_all(names), values)):
                    return False
                for value, before in copies:
                    if value != before:
                        return False
        except (KeyError, RuntimeError):
            # Another thread changes them just now.
            return False
        return True


# The last is the set in which Django notes the names deleted by `del settings.NAME`.
_WATCHED = frozenset((*(PREFIX + name for name in SETTINGS), *_OTHERS, "_deleted"))


def _layers(source: Any) -> Iterator[tuple[Any, ...]]:
    """
    Returns snapshots of the objects that hold settings, from the top to the bottom.

    Each is the object's ``__dict__``, how many names it has and its last one, what reads those that
    count, their values, and copies of those that can be changed.

    A setting's value is that of the first one that has it. `override_settings` lays one above the
    others; each has the one below as `default_settings`. At the bottom are Django's own defaults, a
    module, which no project changes.
    """
    while hasattr(source, "__dict__") and not isinstance(source, ModuleType):
        names = source.__dict__
        # Another thread may change them meanwhile.
        now = dict(names)
        watched = {name: value for name, value in now.items() if name in _WATCHED}
        # Of at least two: for one alone it gives no tuple.
        read_all = itemgetter(*watched, *[*watched][:1]) if watched else None
        values = () if read_all is None else read_all(watched)
        copies = [(v, _copy(v)) for v in watched.values() if isinstance(v, (list, dict, set))]
        # A new name comes last.
        yield names, len(now), next(reversed(now), None), read_all, values, copies
        source = names.get("default_settings")


def _copy(value: Any) -> Any:
    """Copies dicts, lists and sets, also those within; what else they hold stays the same."""
    if isinstance(value, dict):
        # First as a whole: another thread may change it meanwhile.
        return {key: _copy(each) for key, each in dict(value).items()}
    if isinstance(value, list):
        return [*map(_copy, value)]
    return set(value) if isinstance(value, set) else value


# Exchanged as a whole: any thread may do so at any time.
_known = _Known(None)


# The settings of a process without a Django project.
_without_django: SimpleNamespace | None = None


#: The changes that Django has told of: those of tests, by ``override_settings`` for example.
changes = 0


def _note_change(**_: object) -> None:
    global changes
    changes += 1


setting_changed.connect(_note_change)


#: The settings at one moment, as :func:`present` returns them.
Snapshot = tuple[Any, dict[Any, Any]]


def present() -> Snapshot:
    """
    Returns the project's present settings, and a cache of values that depend on them.

    Callers may add to the cache; it is dropped when a setting changes. Code that needs several
    settings calls this once: checking that nothing has changed costs more than reading one.
    """
    global _known
    source = settings_source() if _without_django is None else _without_django
    known = _known
    if not known.is_true_of(source):
        known = _known = _Known(source)
    return source, known.found


def is_none(name: str) -> bool:
    """
    Whether the setting ``name`` (without prefix), whose default is None, has no other value.

    Checks nothing and takes a fraction of the time of :func:`get`: for calls that send messages.
    """
    source = settings_source() if _without_django is None else _without_django
    return getattr(source, PREFIX + name, None) is None


def use_without_django(values: Mapping[str, Any]) -> None:
    """Sets the settings of a process without a Django project, by names without prefix."""
    global _without_django
    _without_django = SimpleNamespace(**{PREFIX + name: value for name, value in values.items()})


def get(name: str, now: Snapshot | None = None) -> Any:
    """
    Returns the present value of the setting ``name`` (without prefix).

    Args:
        now: The result of :func:`present`, if the caller has it.

    Raises:
        ImproperlyConfigured: The project's settings hold an invalid value.
    """
    return _get(name, *(now or present()))


def get_or(name: str, *, otherwise: Any) -> Any:
    """
    Returns as :func:`get`, but ``otherwise`` in place of an invalid value: a check reports that.

    For code that has to go on all the same.
    """
    try:
        return get(name)
    except ImproperlyConfigured:
        return otherwise


def _get(name: str, source: Any, known: dict[Any, Any]) -> Any:
    try:
        return known[name]
    except KeyError:
        pass
    # Not from `settings`, which may hold others already, in another thread's `override_settings`.
    value = getattr(source, PREFIX + name, SETTINGS[name].default)
    try:
        read_value = read(name, value)
    except ValueError as error:
        raise ImproperlyConfigured(f"{PREFIX}{name} {error}.") from None
    known[name] = read_value
    return read_value


@dataclass(frozen=True)
class Options:
    """The settings that can differ from view to view. Each field is the setting of that name."""

    text_type: type[str | bytes]
    allowed_origins: tuple[str, ...]
    require_origin: bool
    subprotocols: tuple[str, ...]
    fallback: bool
    compression: Compression | None
    max_message_size: int
    max_frame_size: int | None
    max_fragments: int
    receive_buffer: int
    max_messages_per_second: float | None
    max_bytes_per_second: float | None
    rate_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    send_buffer: int
    send_timeout: float | None
    message_timeout: float | None
    close_timeout: float
    handshake_timeout: float | None

    @functools.cached_property
    def for_engine(self) -> _core.Settings:
        """The part of them that the engine needs for each connection."""
        return _core.Settings(
            max_message_bytes=self.max_message_size,
            max_frame_bytes=self.max_frame_size,
            max_fragments=self.max_fragments,
            receive_buffer_bytes=self.receive_buffer,
            messages_per_second=self.max_messages_per_second,
            bytes_per_second=self.max_bytes_per_second,
            rate_timeout=self.rate_timeout,
            ping_interval=self.ping_interval,
            ping_timeout=self.ping_timeout,
            send_buffer_bytes=self.send_buffer,
            send_timeout=self.send_timeout,
            close_timeout=self.close_timeout,
            message_timeout=self.message_timeout,
        )

    @classmethod
    def current(cls, overrides: Mapping[str, Any], now: Snapshot | None = None) -> Options:
        """
        Returns the project's present settings, and ``overrides`` (from :func:`overrides`) above.

        ``now``, and what it raises, are as for :func:`get`.
        """
        source, known = now or present()
        key = tuple(overrides.items())
        if (options := known.get(key)) is None:
            values = (
                overrides[name] if name in overrides else _get(name.upper(), source, known)
                for name in OPTION_NAMES
            )
            options = known[key] = _options(*values)
        found: Options = options
        return found


@dataclass(frozen=True)
class Admission:
    """The limits that every handshake has to meet. Each field is the setting of that name."""

    max_handshake_size: int | None
    max_connections: int | None
    max_connections_per_address: int | None
    max_connections_per_user: int | None

    @classmethod
    def current(cls, now: Snapshot | None = None) -> Admission:
        """Returns the project's present settings, as :meth:`Options.current`."""
        source, known = now or present()
        if (admission := known.get(cls)) is None:
            values = [_get(field.name.upper(), source, known) for field in fields(cls)]
            admission = known[cls] = cls(*values)
        found: Admission = admission
        return found


# Gives the one object that all connections with the same values share.
_options = functools.lru_cache(maxsize=64)(Options)

OPTION_NAMES = tuple(field.name for field in fields(Options))


def overrides(decorator: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """
    Checks a decorator's keyword arguments, without looking at the project's settings.

    Raises:
        TypeError: An argument that no view can have.
        ValueError: A value that it cannot have.
    """
    checked = {}
    for name, value in keywords.items():
        if name not in OPTION_NAMES:
            known = ", ".join(OPTION_NAMES)
            raise TypeError(f"{decorator}() has no argument {name!r}; it takes {known}")
        try:
            checked[name] = read(name.upper(), value)
        except ValueError as error:
            raise ValueError(f"{decorator}({name}=…) {error}") from None
    return checked

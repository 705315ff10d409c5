"""``Room``: a class of rooms, as a project writes it, and the names of rooms."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar

from asgiref.sync import iscoroutinefunction
from django.urls.converters import IntConverter
from django.urls.resolvers import RoutePattern

from dwebsocket import _core
from dwebsocket.groups import names
from dwebsocket.groups.api import Group, of_checked
from dwebsocket.rooms.wire import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dwebsocket.groups.backends.contract import Backend
    from dwebsocket.typing import WebSocketRequest
    from dwebsocket.websocket import WebSocket

#: The methods that a project may write, each a function or a coroutine function.
HOOKS = ("allow", "info", "receive", "joined", "left", "resumed", "group_name")

# The server itself sends these to pages, under the names that events of other pages have.
_OF_THE_SERVER = frozenset({"joined", "left", "message", "recovered", "state", "updated"})
# A room's own rate has bursts of so many seconds, as the settings have by default.
_BURST_S = 3
_PART = re.compile(r"<(?:[^>:]+:)?([^>]+)>")


class Room:
    """
    A class of rooms. There is one object for each room that a connection has joined.

    Subclasses set :attr:`name` and write the methods that they need, each a function or a coroutine
    function. The methods of one connection are called one at a time, in the order of its messages;
    those of other connections go on meanwhile. ``allow`` is asked on an object of its own each time
    a page wants to join, and on the room's where that has joined.

    On a connection in more than 16 rooms, an object that was given no attributes, and to which
    nothing refers, is made anew when it is needed.

    Attributes:
        name: Of the class: the names that a page may ask for, in the syntax of ``path()``. Of an
            object: the room's name, as the page knows it.
        presence: Whether the room's users are known, and told of each other; with ``"watch"`` its
            connections are told of users that are present by other connections, and are not
            themselves. A group without an entry in ``PRESENCE`` has a grace of 10 seconds.
        history: Whether a page that comes back gets what it has missed; None if the group has an
            entry in ``HISTORY``.
        events: The names of events that are passed on to the other members as they are, without a
            call of :meth:`receive`. None of ``message``, ``joined``, ``left``, ``updated``,
            ``recovered`` and ``state``, which pages take for the server's.
        max_members: The most users with presence, else the most connections; None for no limit.
            Counted before a join: of several that come at the same moment more may get in, and
            other processes' counts are up to a second old.
        rate: The events a second of one connection to this room, with bursts of three times as
            many; None for ``WEBSOCKET_ROOMS_RATE`` alone.
        survives: Whether connections with such rooms move to another process when theirs is
            replaced, with all rooms: see ``docs/deploys.md``. All classes of a view have to.
        version: Any comparable value. Connections move to a class of the same version alone.
        state: A dict of values that JSON can represent, empty before :meth:`allow`. It moves with
            the connection; other attributes do not.
        request: The connection's request.
        websocket: The connection.
    """

    name: str = ""
    presence: ClassVar[bool | str] = False
    history: ClassVar[bool | None] = None
    events: ClassVar[Collection[str]] = ()
    max_members: ClassVar[int | None] = None
    rate: ClassVar[float | None] = None
    survives: ClassVar[bool] = True
    version: ClassVar[Any] = None

    request: WebSocketRequest
    websocket: WebSocket

    # Of the connection, for `dwebsocket.rooms.connection`. A page may be in many rooms: what is the
    # class's, or follows from the name, is no attribute of the object.
    _kwargs: dict[str, Any] | None = None
    _group: Group | None = None
    _seat: _core.Seat | None = None
    _backend: Backend
    _is_present: bool = False
    _said: str | None = None
    _server_info: dict[str, Any] = {}  # noqa: RUF012 - never changed
    _since: str = ""
    _bucket: _core.Bucket | None = None
    _state: dict[str, Any] | None = None

    def __init__(self, websocket: WebSocket, request: Any, name: str) -> None:
        """Makes the object of one room. Not for projects."""
        self.websocket = websocket
        self.request = request
        self.name = name
        if self.rate is not None:
            self._bucket = _core.Bucket(self.rate, max(1.0, _BURST_S * self.rate))

    @property
    def user(self) -> Any:
        """The request's user, as ``request.user``."""
        return self.request.user

    @property
    def state(self) -> dict[str, Any]:
        """The dict that moves with the connection to another process."""
        if self._state is None:
            self._state = {}
        return self._state

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._state = state

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments in the room's name, as a view gets those in its URL."""
        if self._kwargs is None:
            self._kwargs = pattern_of(type(self)).match(self.name) or {}
        return self._kwargs

    @property
    def group(self) -> Group:
        """The group that the room is, from the call of :meth:`group_name` on."""
        if self._group is None and is_written(self, "group_name"):
            raise AttributeError("a room has its group after group_name() has named it")
        # Names of rooms are those of groups.
        return self._group or of_checked(self.name)

    def allow(self) -> Any:
        """
        Says whether the connection may join: True here.

        It is asked again each ``WEBSOCKET_AUTH_RECHECK`` seconds, and by a second join.

        Returns:
            True or False.

        Raises:
            PermissionDenied: As False.
            Http404: There is no such room.
        """
        return True

    def group_name(self) -> Any:
        """
        Returns the room's group: by its name, or as ``group(…)`` or ``user(…)``.

        The room's own name here. Called once, after :meth:`allow`.
        """
        return self.name

    def info(self) -> Any:
        """
        Returns what others see of this connection: a dict of what JSON can represent, or None.

        The page may add to it; the names here win. Nothing here. Called once, and in rooms with
        presence only.
        """
        return None

    def receive(self, event: str, data: Any) -> Any:
        """
        Takes an event of the client.

        Args:
            event: Its name.
            data: Its data, as JSON has it.

        Returns:
            The acknowledgement: what JSON can represent.

        Raises:
            PermissionDenied: Answered with ``denied``.
            Http404: Answered with ``unknown``.
        """
        raise Refused("invalid", "This room takes no events.")

    def joined(self) -> Any:
        """Is called when the connection has joined and was told so. Does nothing here."""

    def left(self) -> Any:
        """Is called when the connection is in the room no more, however it left. Does nothing."""

    def resumed(self) -> Any:
        """
        Is called in a process that goes on with the connection of another one.

        Neither ``joined`` nor ``left`` is: the page notices nothing. Does nothing here.
        """


def is_written(room: Room, name: str) -> bool:
    """Whether the project has written a method, be it after the class: others need no call."""
    return getattr(type(room), name) is not getattr(Room, name)


def class_of(classes: Sequence[type[Room]], name: str) -> type[Room] | None:
    """Returns the first class whose names fit a room's."""
    return next((cls for cls in classes if pattern_of(cls).fits(name)), None)


def is_async(cls: type[Room]) -> bool:
    """Whether a method of a class is a coroutine function."""
    return any(iscoroutinefunction(getattr(cls, name)) for name in HOOKS)


def pattern_of(cls: type[Room]) -> Pattern:
    """Returns the names of a class."""
    return _pattern(cls.name)


def is_plain(cls: type[Room]) -> bool:
    """Whether an object of a class, with no attributes of its own, may be made anew."""
    is_own_object = cls.__init__ is Room.__init__ and cls.__new__ is Room.__new__
    has_only_a_dict = cls.__basicsize__ == Room.__basicsize__ and not hasattr(cls, "__del__")
    return is_own_object and has_only_a_dict and pattern_of(cls).is_fixed


def check(cls: object) -> None:
    """
    Checks a class of rooms.

    Raises:
        TypeError: It is none, or an attribute has another type.
        ValueError: An attribute has a value that it cannot have.
        ImproperlyConfigured: ``path()`` does not take its name.
    """
    if not (isinstance(cls, type) and issubclass(cls, Room)):
        raise TypeError(f"rooms() takes subclasses of Room, not {cls!r}")
    where = cls.__name__
    if not isinstance(cls.name, str) or not cls.name:
        raise TypeError(f"{where}.name must be a text such as 'room-<int:pk>', not {cls.name!r}")
    pattern_of(cls)
    for each in HOOKS:
        if not callable(getattr(cls, each)):
            raise TypeError(f"{where}.{each} must be a method, not {getattr(cls, each)!r}")
    if not isinstance(cls.presence, bool) and cls.presence != "watch":
        raise ValueError(f"{where}.presence must be True, False or 'watch', not {cls.presence!r}")
    if cls.history is not None and not isinstance(cls.history, bool):
        raise ValueError(
            f"{where}.history must be True, False or None, not {cls.history!r}: how much is kept "
            "stands in HISTORY of WEBSOCKET_GROUPS, which every process reads"
        )
    is_list = isinstance(cls.events, Collection) and not isinstance(cls.events, str)
    if not is_list or not all(isinstance(each, str) for each in cls.events):
        raise TypeError(f"{where}.events must be a list of names, not {cls.events!r}")
    for each in _OF_THE_SERVER.intersection(cls.events):
        raise ValueError(
            f"{where}.events has {each!r}, which pages take for the server's: rename it"
        )
    if not isinstance(cls.survives, bool):
        raise TypeError(f"{where}.survives must be True or False, not {cls.survives!r}")
    _check_number(f"{where}.max_members", cls.max_members, int)
    _check_number(f"{where}.rate", cls.rate, (int, float))


def _check_number(where: str, value: Any, kinds: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{where} must be a number or None, not {value!r}")
    # A number that the engine cannot have fails at each join.
    if not value > 0 or (isinstance(value, int) and value > sys.maxsize):
        raise ValueError(f"{where} must be a number above 0 or None, not {value!r}")


class Pattern:
    """The names of one class of rooms."""

    def __init__(self, name: str) -> None:
        """
        Reads a pattern such as ``room-<int:pk>``.

        Raises:
            ImproperlyConfigured: It is none.
        """
        self._route = RoutePattern(name, is_endpoint=True)
        # What the arguments fill, and how each is written.
        parts, converters = _PART.split(name), self._route.converters
        self._form = "%s".join(part.replace("%", "%%") for part in parts[::2])
        self._written = [(each, converters[each].to_url) for each in parts[1::2]]

        #: Whether nothing but the text decides which names fit.
        self.is_fixed = all(
            type(each).__module__ == IntConverter.__module__ for each in converters.values()
        )
        # Those of Django give back what they match, but for numbers with leading zeros.
        own = self._route.regex.pattern.replace(IntConverter.regex, "(?:0|[1-9][0-9]*)")
        self._fixed = re.compile(own) if self.is_fixed else None

    def fits(self, name: str) -> bool:
        """Whether a name is one of them: as :meth:`match`, and faster."""
        if self._fixed is None:
            return self.match(name) is not None
        try:
            names.checked(name)
        except ValueError:
            return False
        return self._fixed.search(name) is not None

    def match(self, name: str) -> dict[str, Any] | None:
        """
        Returns the arguments in a name; None for a name that does not fit.

        Nor does one that the arguments do not give back: each room has one name.
        """
        try:
            # As the name of a group, which it is by default.
            names.checked(name)
            found = self._route.match(name)
            if found is None or found[0]:
                return None
            kwargs: dict[str, Any] = found[2]
            filled = self._form % tuple([to_url(kwargs[each]) for each, to_url in self._written])
        except ValueError:
            return None
        return kwargs if filled == name else None


_pattern = functools.cache(Pattern)

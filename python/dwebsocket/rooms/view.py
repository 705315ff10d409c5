"""``rooms()``: the view of a WebSocket with rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from dwebsocket import _core, conf
from dwebsocket.api import callbacks
from dwebsocket.api.waiting import steps
from dwebsocket.groups import seats
from dwebsocket.groups.view_groups import ViewGroups
from dwebsocket.handler import WebSocketHandler, refuse_own_names
from dwebsocket.rooms import moving, room, wire
from dwebsocket.rooms.connection import Rooms
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.http.response import HttpResponseBase

    from dwebsocket.rooms.room import Room
    from dwebsocket.runners.moving import MovingSeat


class _Handler(WebSocketHandler):
    """The handler of a connection with rooms, whose rooms have sync methods only."""

    # Not a period: has the connection wait in a way that others may end.
    every = 1e8
    classes: ClassVar[Sequence[type[Room]]]
    is_async = False

    _its: Rooms | None = None
    # The time for which a timer is set, unless that has had its tick.
    _timer: float | None = None

    @classmethod
    def _plan_view(cls) -> None:
        super()._plan_view()
        # It is in the group of its user by rooms only.
        cls._view_groups = ViewGroups("rooms", (), of_user=False)

    @property
    def its(self) -> Rooms:
        """The connection's rooms."""
        if self._its is None:
            self._its = Rooms(
                self.websocket, self.request, self.classes, self, is_async=self.is_async
            )
            connection = self.websocket._connection
            if isinstance(connection, _core.Connection):
                connection.answer_pings()
        return self._its

    # -- moves to another process ----------------------------------------------------------------

    _taken: moving.TakenSeats | None = None

    def _seats_to_move(self) -> dict[str, MovingSeat]:
        return {} if self._its is None else moving.seats_of(self._its)

    def _pack_rooms(self) -> dict[str, Any] | None:
        return moving.pack(self._its)

    def _obstacle_in(self, packed: dict[str, Any] | None) -> str | None:
        if packed is None:
            return "its URL has rooms now"
        return moving.obstacle(self.classes, packed)

    def _seat_rooms(
        self,
        packed: dict[str, Any] | None,
        connection: _core.Connection,
        key: bytes,
        user: str | None,
    ) -> dict[str, _core.Seat | None]:
        if packed is None:
            return {}
        number = seats.new_number(self)
        taken = _core.Seats(connection, key, user, number)
        by_name = {each["name"]: taken.take(each["name"]) for each in packed["rooms"]}
        self._taken = taken, number, by_name
        return by_name

    def _unpack_rooms(self, packed: dict[str, Any] | None) -> None:
        taken, self._taken = self._taken, None
        if packed is not None and taken is not None:
            moving.unpack(self.its, packed, taken)

    def _finish_moved(self) -> None:
        super()._finish_moved()
        if self._its is not None:
            self._its.part()

    def resumed(self) -> Any:
        """Goes on with the rooms of another process."""
        steps.run(self.its.resume())
        self._set_tick()

    # --------------------------------------------------------------------------------------------

    def look_again(self) -> None:
        """Has what is due done soon. Any thread may call it."""
        # One that comes from another process looks in its first turn, before which it has no home.
        if getattr(self, "_home", None) is not None:
            self._on_tick()

    def ask_again(self, using: str) -> None:
        """Has ``allow`` asked again soon, if a room is of this backend. Any thread may call it."""
        if self._its is not None and self._its.ask_again(using):
            self.look_again()

    def _set_tick(self) -> None:
        due = None if self._is_over else self.its.due
        if due is not None and due == self._timer:
            return
        # Also one that has had its tick: it is not under way any more.
        if self._cancel_tick is not None:
            self._cancel_tick()
            self._cancel_tick = None
        self._timer = due
        if due is not None:
            self._due = due
            self._cancel_tick = callbacks.call_later(max(0.0, due - clock.now()), self._on_tick)

    def receive(self, message: str | bytes) -> Any:
        """Takes a message of the client."""
        its = self._its or self.its
        if (rest := its.receive(message)) is not None:
            steps.run(rest)
        if its.due != self._timer:
            self._set_tick()

    def tick(self) -> Any:
        """Does what is due."""
        self._timer = None
        steps.run(self.its.run_due())

    def disconnect(self, code: int, reason: str) -> Any:
        """Leaves all rooms."""
        steps.run(self.its.end())


class _AsyncHandler(_Handler):
    """The same for rooms with coroutine functions."""

    is_async = True

    async def receive(self, message: str | bytes) -> Any:
        """Takes a message of the client."""
        if (rest := self.its.receive(message)) is not None:
            await steps.arun(rest)
        self._set_tick()

    async def tick(self) -> Any:
        """Does what is due."""
        self._timer = None
        await steps.arun(self.its.run_due())

    async def resumed(self) -> Any:
        """Goes on with the rooms of another process."""
        await steps.arun(self.its.resume())
        self._set_tick()

    async def disconnect(self, code: int, reason: str) -> Any:
        """Leaves all rooms."""
        await steps.arun(self.its.end())


def rooms(*classes: type[Room], **options: Any) -> Callable[..., HttpResponseBase]:
    """
    Returns a view for WebSockets whose pages join rooms: ``path("live/", rooms(Chat, Bell))``.

    It is a handler: there is no thread, task or stack between two messages. Decorators of Django's
    guard it as they guard a page. A plain request gets 400.

    Example::

        class Chat(Room):
            name = "room-<int:pk>"
            presence = True

            def allow(self):
                return self.user.is_authenticated

            def receive(self, event, data):
                self.group.send_json({"author": self.user.pk, "text": data["text"]})


        urlpatterns = [path("live/", rooms(Chat))]

    Args:
        *classes: The rooms that a page may join. The first class whose names fit counts.
        **options: As of :func:`dwebsocket.accept_websocket`, such as ``fallback=True``.

    Raises:
        TypeError: No class, what is no subclass of :class:`Room`, an option that no view has, or a
            name with an underscore in place of one that :class:`Room` needs itself.
        ValueError: A value that an option or an attribute of a class cannot have.
        ImproperlyConfigured: A name that ``path()`` does not take.
    """
    if not classes:
        raise TypeError("rooms() takes the classes of rooms: none was given")
    for each in classes:
        room.check(each)
        refuse_own_names(each, room.Room)
    conf.overrides("rooms", options)
    own = tuple(options.pop("subprotocols", ()))
    base = _AsyncHandler if any(map(room.is_async, classes)) else _Handler
    attributes: dict[str, Any] = {"classes": classes, "__module__": __name__}
    names = ", ".join(each.__qualname__ for each in classes)
    attributes["__qualname__"] = f"rooms({names})"
    attributes["survives"] = all(each.survives for each in classes)
    view: type[_Handler] = type("rooms", (base,), attributes)
    return view.as_view(**options, subprotocols=(wire.SUBPROTOCOL, *own))

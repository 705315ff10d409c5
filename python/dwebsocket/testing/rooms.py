"""
A test's end of a WebSocket with rooms, for sync and for async tests.

Each call is written once, as a coroutine that the WebSocket runs as its own ones.
"""

# mypy: disable-error-code="no-any-return"
# `_run` gives a value for a sync WebSocket, a coroutine for an async one: no type expresses that.

from __future__ import annotations

import itertools
import json
from collections import defaultdict, deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dwebsocket.exceptions import UsageError, WebSocketError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.testing.websocket import AsyncClientWebSocket, ClientWebSocket

_Later = Coroutine[Any, Any, Any]
DictT = TypeVar("DictT")
AnyT = TypeVar("AnyT")
NoneT = TypeVar("NoneT")
ListT = TypeVar("ListT")


class RoomError(WebSocketError):
    """
    The site has refused what a test has asked for in a room.

    Attributes:
        code: ``denied``, ``unknown``, ``invalid``, ``limit``, ``unavailable`` or ``failed``.
        text: What the page is told beside it.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


class BaseRooms(Generic[NoneT, DictT, ListT, AnyT]):
    """
    The common part for sync and async tests.

    In sync tests every call returns its result; in async tests it has to be awaited. Calls raise as
    those of the WebSocket, such as ``ReceiveTimeout`` and ``ConnectionClosed``.
    """

    def __init__(self, websocket: Any) -> None:
        """Uses a WebSocket that is not open yet."""
        #: The WebSocket, for what has no call here.
        self.websocket = websocket
        self._ids = itertools.count(1)
        self._joined: list[str] = []
        # Events of each room, and answers by their ids, that have come before they were asked for.
        self._waiting: defaultdict[str, deque[dict[str, Any]]] = defaultdict(deque)
        self._answers: dict[Any, dict[str, Any]] = {}

    def join(self, name: str, *, since: str | None = None, info: Any = None) -> DictT:
        """
        Joins a room.

        Args:
            name: The room's name.
            since: The position from which the page joins.
            info: The part that others are to see.

        Returns:
            The answer: a dict with ``position``, ``recovered`` and ``missed``; in a room with
            presence with ``members`` and ``count``, too.

        Raises:
            RoomError: The site refuses it.
        """
        return self._run(self._join(name, since, info))

    def leave(self, name: str | None = None) -> NoneT:
        """
        Leaves a room: without a name the only one that is joined.

        Raises:
            RoomError: The site refuses it.
            UsageError: No name, and not exactly one room.
        """
        return self._run(self._leave(name))

    def emit(self, event: str, data: Any = None, *, to: str | None = None) -> AnyT:
        """
        Sends an event, and returns its acknowledgement.

        Args:
            event: The event's name.
            data: What JSON can represent.
            to: The room; None for the only one that is joined.

        Raises:
            RoomError: The site refuses it.
            UsageError: No room, and not exactly one is joined.
        """
        return self._run(self._emit(event, data, to))

    def update(self, info: Any, *, to: str | None = None) -> NoneT:
        """Changes what others see. Takes a room, and raises, as :meth:`emit`."""
        return self._run(self._update(info, to))

    def receive(self, name: str | None = None, timeout: float | None = None) -> DictT:
        """
        Returns the next message of a room, as a page gets it: a dict with ``data``, ``event``,
        ``joined``, ``left``, ``updated``, ``recovered`` or ``ended``.

        Args:
            name: The room; None for the only one that is joined.
            timeout: As of the WebSocket.
        """
        return self._run(self._receive(name, timeout))

    def members(self, name: str | None = None) -> ListT:
        """Returns those that are present in a room: joins it once more. Raises as :meth:`emit`."""
        return self._run(self._members(name))

    def _run(self, call: _Later) -> Any:
        return self.websocket._run(call)

    async def _join(self, name: str, since: str | None, info: Any) -> dict[str, Any]:
        request = {"join": name}
        if since is not None:
            request["since"] = since
        if info is not None:
            request["info"] = info
        try:
            answer = await self._request(request)
        except RoomError as error:
            if error.code in ("denied", "unknown"):
                # One that was joined already is left then.
                self._forget(name)
            raise
        if name not in self._joined:
            self._joined.append(name)
        return answer

    async def _leave(self, name: str | None) -> None:
        name = self._chosen(name)
        await self._request({"leave": name})
        self._forget(name)
        # As on a page: they are of an earlier time.
        self._waiting[name].clear()

    async def _emit(self, event: str, data: Any, to: str | None) -> Any:
        return await self._request({"to": self._chosen(to), "event": event, "data": data})

    async def _update(self, info: Any, to: str | None) -> None:
        await self._request({"update": self._chosen(to), "info": info})

    async def _members(self, name: str | None) -> Any:
        if (name := self._chosen(name)) not in self._joined:
            # The question would join it.
            raise RoomError("invalid", "This room is not joined.")
        answer = await self._request({"join": name})
        return answer.get("members", [])

    async def _receive(self, name: str | None, timeout: float | None) -> dict[str, Any]:
        waiting = self._waiting[self._chosen(name)]
        await self._until(lambda: waiting, timeout)
        return waiting.popleft()

    async def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        number = next(self._ids)
        text = json.dumps({"id": number, **request})
        await self.websocket._send(text)
        await self._until(lambda: number in self._answers, None)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RoomError(answer["error"]["code"], answer["error"]["text"])
        return answer["ok"]

    async def _until(self, is_there: Callable[[], object], timeout: float | None) -> None:
        """Returns when something is there, whichever of several tasks has taken it in."""

        def look() -> object:
            messages = self.websocket._wire.messages
            while messages:
                self._take(json.loads(messages.popleft()))
            return is_there()

        await self.websocket._until_received(look, timeout)

    def _take(self, message: dict[str, Any]) -> None:
        if "room" not in message:
            # A pong has no id, and nobody waits for it.
            self._answers[message.get("id")] = message
            return
        if "ended" in message:
            self._forget(message["room"])
        self._waiting[message["room"]].append(message)

    def _forget(self, name: str) -> None:
        if name in self._joined:
            self._joined.remove(name)

    def _chosen(self, name: str | None) -> str:
        if name is not None:
            return name
        # One that has ended, and was not told of yet.
        names = self._joined or [name for name, waiting in self._waiting.items() if waiting]
        if len(names) != 1:
            raise UsageError(f"which room? {len(self._joined)} are joined")
        return names[0]


class ClientRooms(BaseRooms[None, "dict[str, Any]", "list[dict[str, Any]]", Any]):
    """A WebSocket with rooms in a sync test: ``with client.rooms("/live/") as live``."""

    websocket: ClientWebSocket

    def __enter__(self) -> ClientRooms:  # noqa: PYI034
        self.websocket.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:  # noqa: PYI036
        self.websocket.__exit__(*failure)


class AsyncClientRooms(BaseRooms[_Later, _Later, _Later, _Later]):
    """A WebSocket with rooms in an async test: ``async with client.rooms("/live/") as live``."""

    websocket: AsyncClientWebSocket

    async def __aenter__(self) -> AsyncClientRooms:  # noqa: PYI034
        await self.websocket.__aenter__()
        return self

    async def __aexit__(self, *failure: Any) -> None:  # noqa: PYI036
        await self.websocket.__aexit__(*failure)

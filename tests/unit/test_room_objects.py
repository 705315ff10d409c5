"""A room's object lasts as long as anything would be lost with it."""

from __future__ import annotations

import copy
import gc
import uuid
import weakref
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from django.urls import path

from dwebsocket import group
from dwebsocket.groups import backends
from dwebsocket.groups.backends import process
from dwebsocket.rooms import Room, rooms
from dwebsocket.rooms.room import Pattern
from dwebsocket.testing import Clock, RoomError, WebSocketClient, websockets_of_a_test
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwebsocket.testing import ClientRooms

# More than a connection has objects of, whatever they have.
MANY = 60
REFERRED_TO: set[Room] = set()
WEAKLY: weakref.WeakSet[Room] = weakref.WeakSet()
LEFT: list[str] = []
DENIED: set[str] = set()


class Talking(Room):
    """Says what it knows, and does what it is told."""

    def allow(self) -> bool:
        return self.name not in DENIED

    def left(self) -> None:
        LEFT.append(self.name)

    def receive(self, event: str, data: Any) -> Any:
        return getattr(self, event)(data)

    def name_it(self, _data: Any) -> Any:
        return [self.name, self.kwargs["pk"], self.group.name, self.websocket.id, id(self)]

    def note(self, data: Any) -> None:
        self.noted = data

    def recall(self, _data: Any) -> Any:
        return getattr(self, "noted", None)


class Plain(Talking):
    name = "plain-<int:pk>"


class Bare(Room):
    """There is nothing in its own code that anybody could refer to."""

    name = "bare-<int:pk>"


class Cached(Talking):
    name = "cached-<int:pk>"

    @cached_property
    def strokes(self) -> list[Any]:
        return []

    def note(self, data: Any) -> None:
        self.strokes.append(data)

    def recall(self, _data: Any) -> Any:
        return self.strokes[-1]


class State(Talking):
    name = "state-<int:pk>"

    def note(self, data: Any) -> None:
        self.state["noted"] = data

    def recall(self, _data: Any) -> Any:
        return self.state["noted"]


class Slots(Talking):
    name = "slots-<int:pk>"
    __slots__ = ("noted",)


class Referred(Talking):
    """The project refers to it; a thread would."""

    name = "referred-<int:pk>"
    those: ClassVar[Any] = REFERRED_TO

    def note(self, data: Any) -> None:
        self.those.add(self)

    def recall(self, _data: Any) -> Any:
        return self.kwargs["pk"] if self in self.those else None


class Weak(Referred):
    name = "weak-<int:pk>"
    those = WEAKLY


class Begun(Talking):
    """It has more from its first moment on."""

    name = "begun-<int:pk>"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.count = 0

    def note(self, data: Any) -> None:
        self.count = data

    def recall(self, _data: Any) -> Any:
        return self.count


class Arguments(Talking):
    """It puts things into the arguments of its name, as views do into theirs."""

    name = "arguments-<int:pk>"

    def note(self, data: Any) -> None:
        self.kwargs["noted"] = data

    def recall(self, _data: Any) -> Any:
        return self.kwargs["noted"]


class Requests(Talking):
    name = "requests-<int:pk>"

    def note(self, data: Any) -> None:
        self.request = copy.copy(self.request)
        self.request.noted = data  # type: ignore[attr-defined]

    def recall(self, _data: Any) -> Any:
        return self.request.noted  # type: ignore[attr-defined]


class InAllow(Talking):
    name = "allow-<int:pk>"

    def allow(self) -> bool:
        self.membership = self.kwargs["pk"]
        return True

    def note(self, data: Any) -> None:
        pass

    def recall(self, _data: Any) -> Any:
        return self.membership


async def _receive(self: Room, event: str, data: Any) -> Any:
    return Talking.receive(self, event, data)  # type: ignore[arg-type]


ASYNC = type("Async", (Plain,), {"name": "async-<int:pk>", "receive": _receive})
KEEPING = [
    *(Cached, State, Slots, Referred, Weak, Begun, Arguments, Requests, InAllow, Plain, ASYNC)
]
urlpatterns = [
    path("sync/", rooms(*[each for each in KEEPING if each is not ASYNC], Bare)),
    path("async/", rooms(*KEEPING, Bare)),
]


@pytest.fixture(autouse=True)
def _site(override: Callable[..., None]) -> Iterator[None]:
    for each in (REFERRED_TO, WEAKLY, LEFT, DENIED):
        each.clear()
    override(
        ROOT_URLCONF=__name__,
        WEBSOCKET_GROUPS={},
        WEBSOCKET_MAX_ROOMS=1000,
        WEBSOCKET_ROOMS_RATE=100_000,
        WEBSOCKET_ROOMS_BURST=100_000,
    )
    with backends.replaced(process.Backend), websockets_of_a_test():
        yield


@pytest.fixture(params=["sync", "async"])
def live(request: pytest.FixtureRequest) -> Iterator[ClientRooms]:
    """A connection with rooms whose methods are functions, or coroutine functions too."""
    with WebSocketClient().rooms(f"/{request.param}/") as found:
        yield found


def objects() -> int:
    gc.collect()
    return sum(issubclass(type(each), Room) for each in gc.get_objects())


@pytest.mark.parametrize("kind", [each.name.split("-")[0] for each in KEEPING])
def test_what_a_room_knows_is_there_when_it_is_used_again(kind: str) -> None:
    """However many other rooms were used meanwhile, and in whatever way it is known."""
    with WebSocketClient().rooms("/async/") as live:
        for number in range(1, MANY):
            live.join(f"{kind}-{number}")
            live.emit("note", number, to=f"{kind}-{number}")
        for number in range(1, MANY):
            assert live.emit("recall", to=f"{kind}-{number}") == number


def test_a_room_is_as_it_was_when_its_object_is_made_anew(live: ClientRooms) -> None:
    """It has its name, arguments, group and connection."""
    names = [f"plain-{number}" for number in range(MANY)]
    for name in names:
        live.join(name)
    told = [live.emit("name_it", to=name)[:4] for name in names]
    own = told[0][3]
    assert told == [[name, number, name, own] for number, name in enumerate(names)]


@pytest.mark.parametrize(
    "form", ["a", "<int:a>", "<str:a>-<slug:b>", "<uuid:a>/<path:b>", "[0-9]+<int:a>"]
)
@pytest.mark.parametrize(
    "name",
    [
        *(
            "a",
            "0",
            "00",
            "7",
            "07",
            "-1",
            "x-y",
            "x-",
            "x/-y",
            "a\n",
            "7\n",
            "٣",
            "[0-9]+7",
            "[0-9]+07",
            "",
        ),
        *("9" * 190, "9" * 300, "dwebsocket.a-b"),
        *(f"{uuid.UUID(int=7)}/a/b", f"{uuid.UUID(int=0xABC)}/a".upper(), f"{uuid.UUID(int=7)}/"),
    ],
)
def test_the_names_that_fit_are_those_that_their_arguments_give_back(form: str, name: str) -> None:
    """However it is found out."""
    pattern = Pattern(form)
    assert pattern.fits(name) == (pattern.match(name) is not None)


def test_a_page_in_few_rooms_has_one_object_for_each(live: ClientRooms) -> None:
    names = [f"plain-{number}" for number in range(10)]
    for name in names:
        live.join(name)
    first, second = ([live.emit("name_it", to=name)[4] for name in names] for _ in range(2))
    assert first == second
    assert len(set(first)) == len(names)


def test_a_page_in_many_rooms_has_few_objects(live: ClientRooms) -> None:
    before = objects()
    for number in range(300):
        live.join(f"bare-{number}")
    assert objects() - before < 30


def test_each_of_many_rooms_goes_on(live: ClientRooms) -> None:
    """Its messages come, a second join is answered, an eviction and a leave end it."""
    names = [f"plain-{number}" for number in range(MANY)]
    for name in names:
        live.join(name)
    group(names[0]).send("hello")
    assert live.receive(names[0])["data"] == "hello"
    assert live.join(names[1])["recovered"] is True
    live.leave(names[2])
    group(names[3]).evict(live.emit("name_it", to=names[3])[3])
    live.emit("name_it", to=names[0])
    eventually(lambda: names[3] in LEFT)
    for name in names[2:4]:
        with pytest.raises(RoomError, match="not joined"):
            live.emit("name_it", to=name)
    assert sorted(LEFT) == names[2:4]
    live.websocket.close()
    eventually(lambda: sorted(LEFT) == sorted(names))
    assert sum(group(name).count() for name in names) == 0


def test_the_recheck_asks_all_of_many_rooms(override: Callable[..., None]) -> None:
    override(WEBSOCKET_AUTH_RECHECK=60)
    clock = Clock()
    names = [f"plain-{number}" for number in range(MANY)]
    with WebSocketClient().rooms("/sync/") as live:
        for name in names:
            live.join(name)
        DENIED.update(names[::2])
        clock.advance(60)
        eventually(lambda: sorted(LEFT) == sorted(names[::2]))
        assert live.emit("name_it", to=names[1])[0] == names[1]


def test_the_limit_counts_all_rooms(live: ClientRooms, override: Callable[..., None]) -> None:
    override(WEBSOCKET_MAX_ROOMS=MANY)
    for number in range(MANY):
        live.join(f"bare-{number}")
    with pytest.raises(RoomError, match=f"in {MANY} rooms"):
        live.join(f"bare-{MANY}")
    live.leave("bare-0")
    live.join(f"bare-{MANY}")

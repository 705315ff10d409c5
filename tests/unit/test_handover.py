"""`dwebsocket.handover`: frames between processes, where they meet, and what can move."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import path
from visit import descriptors, handshake

from dwebsocket import WebSocketHandler, _core
from dwebsocket.compat import unpatched
from dwebsocket.compat.socket import accept
from dwebsocket.compat.system import monotonic, since_boot
from dwebsocket.conf.group_settings import BackendSettings
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups.backends import local
from dwebsocket.handover import (
    answering,
    arriving,
    leaving,
    meeting,
    offers,
    places,
    requests,
    wire,
)
from dwebsocket.handover.wire import (
    FORGET,
    GIVE,
    LOST,
    NO,
    OFFER,
    READY,
    TAKEN,
    YES,
    Frame,
    Link,
    Malformed,
)
from dwebsocket.runners import moving, shutdown
from dwebsocket.servers import hosts
from dwebsocket.servers.contract import Client
from dwebsocket.telemetry import records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwebsocket.servers.contract import Heirs

TIMEOUT_S = 60.0

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")


# The head of a no after which another heir is asked.
NO_HERE = {"number": 0, "code": 1012, "reason": "", "elsewhere": True, "why": ""}


def restarting() -> tuple[int, str]:
    """Say that the site goes on."""
    return 1012, "restarting"


@pytest.fixture
def links() -> Iterator[tuple[Link, Link]]:
    """Two ends of a connection."""
    one, other = map(Link, socket.socketpair())
    yield one, other
    one.close()
    other.close()


def test_frames_come_as_they_were_sent_with_their_descriptors(links: tuple[Link, Link]) -> None:
    """Whatever is sent together, and however large it is."""
    one, other = links
    sent = [
        Frame(OFFER, {"number": 1, "text": "ä"}),
        Frame(GIVE, {"number": 1}, os.urandom(1000)),
        Frame(GIVE, {"number": 2}),
        Frame(YES, {"number": 3}, b"body"),
    ]
    inodes = []
    for frame in sent:
        reading, writing = os.pipe()
        inodes.append(os.fstat(reading).st_ino)
        one.send(frame._replace(descriptor=reading if frame.kind == GIVE else None))
        os.close(reading)
        os.close(writing)
    one.shut_down()
    found = list(other.frames())
    assert [frame._replace(descriptor=None) for frame in found] == sent
    for frame, inode in zip(found, inodes, strict=True):
        assert (frame.descriptor is not None) == (frame.kind == GIVE)
        if frame.descriptor is not None:
            assert os.fstat(frame.descriptor).st_ino == inode
            os.close(frame.descriptor)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff\x01\x00\x00\x00\x00",
        b"\x00\x00\x00\x05\x01\x00\x00\x00\x07",
        # A connection is given, and no descriptor comes.
        b"\x00\x00\x00\x07\x02\x00\x00\x00\x02{}",
        # Heads that are no objects of JSON.
        b"\x00\x00\x00\x08\x01\x00\x00\x00\x03{x}",
        b"\x00\x00\x00\x07\x01\x00\x00\x00\x02[]",
        b'\x00\x00\x00\x08\x01\x00\x00\x00\x03"\xff"',
        b"\x00\x01\x86\xa5\x01\x00\x01\x86\xa0" + b"[" * 100_000,
    ],
    ids=lambda data: data[:16].hex(),
)
def test_other_bytes_are_malformed(data: bytes) -> None:
    """And take no memory."""
    one, other = socket.socketpair()
    link = Link(other)
    one.sendall(data)
    with pytest.raises(Malformed):
        list(link.frames())
    one.close()
    link.close()


def test_descriptors_of_no_frame_are_closed(links: tuple[Link, Link]) -> None:
    """As when the other process dies while it gives a connection."""
    one, other = links
    reading, writing = os.pipe()
    socket.send_fds(one._socket, [b"\x00\x00\x00\xff"], [reading])
    os.close(reading)
    one.shut_down()
    assert list(other.frames()) == []
    other.close()
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"nobody reads")
    os.close(writing)


@pytest.mark.parametrize("at_once", [True, False], ids=["linux", "macos"])
def test_programs_that_an_heir_starts_inherit_no_connection(
    links: tuple[Link, Link], monkeypatch: pytest.MonkeyPatch, *, at_once: bool
) -> None:
    """Their clients would see no end as long as such a program runs, and it could read them."""
    if not at_once:
        monkeypatch.setattr(wire, "_CLOSE_ON_EXEC", 0)
    one, other = links
    one.send(Frame(GIVE, {"number": 1}, descriptor=one._socket.fileno()))
    assert other.read()
    (frame,) = other.received()
    assert frame.descriptor is not None
    assert not os.get_inheritable(frame.descriptor)
    os.close(frame.descriptor)


def test_no_frame_gets_the_descriptor_of_another_one(links: tuple[Link, Link]) -> None:
    """Where one is lost, as in a process without descriptors, the link ends."""
    one, other = links
    lost, kept = os.pipe(), os.pipe()
    one.put(Frame(GIVE, {"number": 1}))
    # More than come with one read.
    socket.send_fds(one._socket, [b"".join(one._unsent)], [lost[0]] * 17)
    one._unsent = []
    one.send(Frame(GIVE, {"number": 2}, descriptor=kept[0]))
    os.close(lost[0])
    os.close(kept[0])
    with pytest.raises(Malformed):
        other.read()
    assert list(other.received()) == []
    other.close()
    for writing in (lost[1], kept[1]):
        with pytest.raises(BrokenPipeError):
            os.write(writing, b"nobody reads")
        os.close(writing)


@pytest.mark.parametrize("fails", [False, True], ids=["unknown", "after a failure"])
def test_clients_see_the_end_of_what_an_heir_does_not_take(
    links: tuple[Link, Link], monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    """Given without an offer, or when the giver is gone: no descriptor stays open for good."""
    giver, heir = links
    visit = arriving._Giver(heir._socket, answering.Handler())
    take, taken = arriving._Giver._take, []

    def take_or_fail(self: arriving._Giver, frame: Frame) -> None:
        taken.append(frame)
        take(self, frame)
        if fails:
            raise BrokenPipeError

    monkeypatch.setattr(arriving._Giver, "_take", take_or_fail)
    pipes = [os.pipe() for _ in range(3)]
    for number, (reading, _) in enumerate(pipes):
        giver.send(Frame(GIVE, {"number": number}, b"", reading))
        os.close(reading)
    giver._socket.shutdown(socket.SHUT_WR)
    visit.work()
    assert len(taken) == (1 if fails else 3)
    for _, writing in pipes:
        with pytest.raises(BrokenPipeError):
            os.write(writing, b"nobody reads")
        os.close(writing)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), None], ids=str)
def test_a_connection_that_cannot_be_opened_ends_no_thread(
    links: tuple[Link, Link], error: Exception | None
) -> None:
    """The system gives nothing, or its client is lost: the giver sees the end of the visit."""
    giver, heir = links
    visit = arriving._Giver(heir._socket, answering.Handler())

    def open_it() -> None:
        if error is not None:
            raise error

    class Never(WebSocketHandler):
        """Its life does not begin."""

    offer = SimpleNamespace(open=open_it, close=lambda: None)
    moved: Any = SimpleNamespace(handler=Never(), given=None, moved=offer)
    visit._expected[1] = moved
    giver.send(Frame(GIVE, {"number": 1}, b"", os.open(os.devnull, os.O_RDONLY)))
    giver._socket.shutdown(socket.SHUT_WR)
    visit.work()
    assert [frame.kind for frame in giver.frames()] == [READY]


def test_an_heir_takes_what_it_has_agreed_to_before_it_looks_at_offers(
    links: tuple[Link, Link],
) -> None:
    """The client of a connection that was given waits; a giver can offer many others meanwhile."""
    giver, heir = links
    visit = arriving._Giver(heir._socket, answering.Handler())
    giver.send(Frame(OFFER, {"number": 1}))
    giver.send(Frame(OFFER, {"number": 2}))
    giver.send(Frame(FORGET, {"number": 3}))
    found = [visit._next()]
    giver.send(Frame(FORGET, {"number": 4}))
    giver.shut_down()
    while found[-1] is not None:
        found.append(visit._next())
    assert [frame and frame.head["number"] for frame in found] == [3, 4, 1, 2, None]


class Surviving(WebSocketHandler):
    """It could go on here."""

    survives = True


urlpatterns = [path("surviving/", Surviving.as_view())]


def rooms_kept() -> int:
    """Count the descriptors that take the place of one that is to come."""
    found = (f"/proc/self/fd/{name}" for name in descriptors())
    return sum(os.path.realpath(each) == os.devnull for each in found)


def answered_otherwise(get_response: Callable[[HttpRequest], Any]) -> Callable[..., HttpResponse]:
    """Put another response in the place of the view's."""

    def middleware(request: HttpRequest) -> HttpResponse:
        get_response(request)
        return HttpResponse(status=403)

    return middleware


@pytest.mark.parametrize("why", ["middleware", "descriptors"])
def test_an_offer_that_is_refused_late_takes_no_descriptor(
    links: tuple[Link, Link],
    monkeypatch: pytest.MonkeyPatch,
    override: Callable[..., None],
    why: str,
) -> None:
    """Room for the connection was kept by then; ten thousand of them would take all there are."""
    giver, heir = links
    middleware = [f"{__name__}.answered_otherwise"] if why == "middleware" else []
    override(ROOT_URLCONF=__name__, MIDDLEWARE=middleware)
    monkeypatch.setattr(hosts, "find", lambda: hosts.Host(1, Client("gunicorn", -1, bytes)))
    # It need not listen.
    monkeypatch.setattr(arriving, "host", lambda: None)
    visit = arriving._Giver(heir._socket, answering.Handler())
    meta = requests.meta_of(WSGIRequest(handshake("/surviving/")))
    head = {
        "meta": meta,
        "user": "",
        "login": "",
        "version": "None",
        "agreement": None,
        "id": None,
        "opened_at": 0.0,
        "state": {},
        "tick_in": None,
        "subprotocol": None,
        "places": [],
        "rooms": None,
        "groups": [],
        "backends": {},
    }

    def answer(number: int) -> None:
        visit._answer(arriving.Offer({**head, "number": number}))

    answer(0)
    if why == "descriptors":
        visit._forget_all()
        monkeypatch.setattr(os, "dup", lambda _: os.open("/none left", os.O_RDONLY))
    before = rooms_kept()
    answer(1)
    answer(2)
    assert rooms_kept() == before
    visit._link.flush()
    answers = giver.frames()
    found = [next(answers) for _ in range(3)]
    assert [frame.kind for frame in found[1:]] == [NO, NO]


def test_reading_waits_only_if_it_may(links: tuple[Link, Link]) -> None:
    """An heir looks for more before it goes on with its work."""
    one, other = links
    with pytest.raises(BlockingIOError):
        other.read(waits=False)
    one.send(Frame(FORGET, {"number": 1}))
    assert other.read(waits=False)
    assert list(other.received()) == [Frame(FORGET, {"number": 1})]
    one.shut_down()
    assert not other.read()


def test_handshakes_that_are_being_answered_are_waited_for() -> None:
    """Until they are in the list of those that move; later ones are refused."""
    forgotten, handler = (SimpleHandler() for _ in range(2))
    try:
        moving.expect(handler)
        moving.expect(forgotten)
        # Its client has gone before the answer.
        del forgotten
        entering = threading.Timer(0.1, lambda: moving.enter(handler))
        entering.start()
        with moving.closed():
            assert places.wait_until(lambda: not moving.are_opening(), TIMEOUT_S)
            assert moving.is_closed()
            assert moving.survivors() == [handler]
        assert not moving.is_closed()
        entering.join()
    finally:
        moving.leave(handler)


class SimpleHandler:
    """Stands for a handler."""


def test_a_drain_that_only_begins_waits_for_no_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose ``connect`` asks a slow service; perhaps it drains the process itself."""
    monkeypatch.setattr(leaving, "_OPENING_S", math.inf)
    monkeypatch.setattr(shutdown, "_DRAIN_PATIENCE_S", math.inf)
    monkeypatch.setattr(shutdown, "mover", leaving.Leaving())
    monkeypatch.setattr(_core, "drain", lambda *_: 0.0)
    monkeypatch.setattr(arriving, "stop", lambda: None)
    handler = SimpleHandler()
    moving.expect(handler)
    try:
        draining = threading.Thread(target=lambda: shutdown.drain(timeout=0))
        draining.start()
        draining.join(TIMEOUT_S)
        assert not draining.is_alive()
    finally:
        moving.leave(handler)


class Arrived:
    """Stands for a connection that has come, and for the handler that is to go on with it."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.is_spared = False
        self.websocket: Any = self
        self._connection: Any = self

    def spare(self) -> None:
        self.is_spared = True


@pytest.mark.parametrize("lives", ["before", "meanwhile", "later"])
def test_what_comes_as_the_process_begins_to_leave_moves_on(
    monkeypatch: pytest.MonkeyPatch, lives: str
) -> None:
    """Whether or not its handler lives by then. In an event loop nothing waits until it does."""
    given: list[Any] = []
    search = SimpleNamespace(
        is_vain=lambda: False,
        left=lambda: TIMEOUT_S,
        give=lambda handlers: given.extend(handlers) or [],
        reason=lambda: None,
        end=lambda: leaving.RESTARTING,
        close=lambda: None,
    )
    monkeypatch.setattr(leaving, "_Search", lambda *_: search)
    monkeypatch.setattr(arriving, "host", lambda: SimpleNamespace(number=1, asgi=None))
    monkeypatch.setattr(offers, "obstacle", lambda handler: None)
    handler: Any = Arrived(7)
    mover = leaving.Leaving()
    moving.expect(handler, is_moved=True)
    mover.take_along(handler, handler)

    look = moving.given

    def look_and_live() -> list[Any]:
        found = look()
        if lives == "meanwhile":
            moving.enter(handler)
        return found

    monkeypatch.setattr(moving, "given", look_and_live)
    try:
        if lives == "before":
            moving.enter(handler)
        mover._begin(monotonic() + TIMEOUT_S, "to come", lambda: leaving.RESTARTING)
        assert handler.is_spared
        assert mover.moves(handler)
        moving.enter(handler)
        mover.join(TIMEOUT_S)
        assert given == [handler]
        assert look() == []
    finally:
        moving.leave(handler)


class TestFolder:
    """Where processes meet."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WEBSOCKET_RUNTIME_DIR", str(tmp_path))

    def test_depends_on_all_that_makes_a_project(self, override: Any) -> None:
        """Another key, other URLs or another prefix: another folder."""
        seen = {meeting.folder()}
        for changed in (
            {"SECRET_KEY": "another"},
            {"ROOT_URLCONF": "another"},
            {"SETTINGS_MODULE": "another"},
            {"WEBSOCKET_GROUPS": {"default": {"PREFIX": "another:"}}},
        ):
            override(**changed)
            seen.add(meeting.folder())
        assert len(seen) == 5

    def test_is_refused_where_others_may_enter(self) -> None:
        """They could take connections."""
        meeting.folder().mkdir(0o755)
        meeting.folder().chmod(0o755)
        with pytest.raises(PermissionError, match="can be entered by other users"):
            meeting.Folder()

    def test_a_process_that_accepts_nothing_holds_none_up(self) -> None:
        """A debugger has stopped it, say, and each deploy has asked it: its queue is full."""
        folder = meeting.Folder()
        other = meeting.Folder()
        listener, name = folder.listen(7)
        with contextlib.closing(listener), contextlib.ExitStack() as waiting:
            listener.listen(1)

            def fill() -> None:
                for _, connection in other.connect([name] * 4):
                    waiting.callback(connection.close)

            thread = threading.Thread(target=fill, daemon=True)
            thread.start()
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()
            assert os.path.exists(folder.path / name)
        folder.close()
        other.close()

    def test_is_refused_where_it_is_a_link(self, tmp_path: Path) -> None:
        """To a folder of whoever has made it."""
        (tmp_path / "other").mkdir(0o700)
        meeting.folder().symlink_to(tmp_path / "other")
        with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
            meeting.Folder()

    def test_a_name_that_cannot_be_removed_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The file system may be read-only. The process closes its connections all the same."""
        folder = meeting.Folder()
        listener, name = folder.listen(7)
        listener.close()

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EROFS, "read-only")

        with monkeypatch.context() as patched:
            patched.setattr(os, "unlink", refuse)
            folder.remove(name)
        assert os.listdir(folder.path) == [name]
        folder.remove(name)
        folder.close()

    def test_waits_as_long_as_it_takes(self) -> None:
        """A limit that the project sets for new sockets does not count."""
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(0.001)
        try:
            folder = meeting.Folder()
            listener, name = folder.listen(7)
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(folder._address(name))
                accepted = accept(listener)
        finally:
            socket.setdefaulttimeout(before)
        assert listener.gettimeout() is accepted.gettimeout() is None
        for each in (listener, accepted, folder):
            each.close()

    def test_finds_the_youngest_first_and_forgets_those_that_are_gone(self) -> None:
        """Not this process itself."""
        folder = meeting.Folder()
        listener, own = folder.listen(7)
        others = {}
        for stamp in (1, 2, 10**19):
            name = f"{stamp:020}-{stamp}-{stamp % 7}-{meeting._container()}"
            others[name] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            others[name].bind(folder._address(name))
            others[name].listen()
        gone = sorted(others)[0]
        others[gone].close()

        elder, younger = sorted(others)[1:]
        names = folder.others()
        assert names == [younger, elder, gone]
        assert folder.others(but={younger, gone}) == [elder]
        found = []
        for name, connection in folder.connect(names):
            found.append(name)
            connection.close()
        assert found == [younger, elder]
        assert folder.others(server=2) == [younger]
        assert sorted(os.listdir(folder.path)) == sorted([elder, younger, own])
        folder.remove(own)
        assert own not in os.listdir(folder.path)
        for each in (listener, *others.values()):
            each.close()
        folder.close()


class TestShares:
    """The share of each of several heirs."""

    @pytest.fixture(autouse=True)
    def _heirs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Two processes that began a moment ago, of which one may take nothing."""
        monkeypatch.setenv("WEBSOCKET_RUNTIME_DIR", str(tmp_path))
        folder, listeners = meeting.Folder(), []
        self.names = names_of(1, 2)
        for name in self.names:
            listeners.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listeners[-1].bind(folder._address(name))
            listeners[-1].listen()
        self.full: set[str] = set()
        #: The times that they are asked until they take something.
        self.full_for = 1000
        self.given: list[tuple[str, int]] = []
        test = self

        class Passage:
            def __init__(self, connection: socket.socket, _: float) -> None:
                self.name = os.path.basename(connection.getpeername())
                connection.close()

            busy = ()

            def give(self, handlers: list[Any]) -> list[Any]:
                test.given.append((self.name, len(handlers)))
                is_full = self.name in test.full and len(test.given) <= test.full_for
                return handlers if is_full else []

        monkeypatch.setattr(leaving, "_Passage", Passage)
        yield
        folder.close()
        for each in listeners:
            each.close()

    def give(self, count: int) -> int:
        """Give so many handlers away, and how many are left."""
        search = leaving._Search("to come", 9, monotonic() + 0.5, restarting)
        with contextlib.closing(search):
            return len(search.give([object()] * count))  # type: ignore[list-item]

    def test_they_take_turns(self) -> None:
        """Otherwise the first one that has booted would have all connections of the site."""
        portion = leaving._PORTION
        assert self.give(4 * portion + 1) == 0
        total = {name: sum(n for each, n in self.given if each == name) for name in self.names}
        assert sorted(total.values()) == [2 * portion, 2 * portion + 1]

    def test_one_that_takes_no_more_is_not_asked_again(self) -> None:
        """The other one gets its part."""
        self.full = {self.names[0]}
        assert self.give(3 * leaving._PORTION) == 0
        assert [name for name, _ in self.given].count(self.names[0]) == 1

    def test_one_that_took_no_more_is_asked_again_later(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may have been too busy to answer, while it booted."""
        monkeypatch.setattr(leaving, "_AGAIN_S", 0.0)
        self.full, self.full_for = set(self.names), 3
        assert self.give(1) == 0
        assert len(self.given) == 4

    @pytest.mark.parametrize("refused", ["listdir", "socket"])
    def test_a_process_without_descriptors_looks_again(
        self, refused: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A moment later others may have ended."""
        where: Any = os if refused == "listdir" else meeting
        name = "listdir" if refused == "listdir" else "_unix_socket"
        allowed = getattr(where, name)
        search = leaving._Search("of others", 10, monotonic() + 60, restarting)
        refusals = 3

        def refuse(*args: object) -> object:
            nonlocal refusals
            if refusals:
                refusals -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return allowed(*args)

        monkeypatch.setattr(where, name, refuse)
        with contextlib.closing(search):
            assert not search.is_vain()
            assert search.give([object()]) == []  # type: ignore[list-item]
        assert refusals == 0
        assert len(self.given) == 1

    def test_those_of_another_server_wait_for_the_own_one(self) -> None:
        """It starts one of this code now. The code of another server may be older, or newer."""
        own, other = self.names[0], self.names[1].replace("-9-", "-10-")
        search = leaving._Search("to come", 9, monotonic() + 60, restarting)
        with contextlib.closing(search):
            search._folder.others = lambda **_: [other, own]  # type: ignore[method-assign]
            assert search._names(with_others=True) == [own]
            search._folder.others = lambda **_: [other]  # type: ignore[method-assign]
            assert search._names(with_others=False) == []
            assert search._names(with_others=True) == [other]

    def test_a_server_that_the_own_one_has_started_follows_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As gunicorn does at USR2: the new master has the newer code."""
        of_new, other = (self.names[0].replace("-9-", f"-{server}-") for server in (10, 11))
        monkeypatch.setattr(leaving, "children_of", lambda *_, **__: [os.getpid(), 10])
        search = leaving._Search("to come", 9, monotonic() + 60, restarting)
        with contextlib.closing(search):
            search._folder.others = lambda **_: [other, of_new]  # type: ignore[method-assign]
            assert search._names(with_others=False) == [of_new]

    def test_what_none_takes_is_left(self) -> None:
        """Each was asked once."""
        self.full = set(self.names)
        assert self.give(3) == 3
        assert sorted(name for name, _ in self.given) == sorted(self.names)


def test_of_those_that_wait_for_each_other_the_first_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one waits on, and then for the process that begins after the first."""
    monkeypatch.setenv("WEBSOCKET_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(leaving, "_SOON_S", 0.0)
    monkeypatch.setattr(leaving, "_SUCCESSOR_S", 0.5)
    handlers: list[Any] = [object()]
    first, second = (leaving._Search("soon", 7, monotonic() + 60, restarting) for _ in range(2))
    with contextlib.closing(second):
        with contextlib.closing(first):
            assert first.give(handlers) == handlers
            assert not first._is_late()
            second._deadline = monotonic() + 0.5
            assert second.give(handlers) == handlers
            assert second._is_late()
        second._deadline = monotonic() + 60
        assert second.give(handlers) == handlers
        assert not second._is_late()


def test_a_process_that_begins_slowly_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it has loaded the project, which takes half a minute on a busy machine."""
    monkeypatch.setenv("WEBSOCKET_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(leaving, "_SOON_S", 0.5)
    ages = {os.getpid(): 40.0, 1: 30.0}

    def children_of(_: int, *, younger: float = math.inf) -> list[int]:
        return [child for child, age in ages.items() if age < younger]

    monkeypatch.setattr(leaving, "children_of", children_of)
    handlers: list[Any] = [object()]
    search = leaving._Search("soon", 7, monotonic() + 2, restarting, leaving._BOOT_S)
    with contextlib.closing(search):
        assert search.give(handlers) == handlers
        assert search._is_late()
        ages[1] = 3600.0
        search._deadline = monotonic() + 60
        assert search.give(handlers) == handlers
        assert not search._is_late()
    ages[1] = 30.0
    # It may be a router of uWSGI, and all workers may be about to leave.
    search = leaving._Search("soon", 7, monotonic() + 60, restarting)
    with contextlib.closing(search):
        assert search.give(handlers) == handlers
        assert not search._is_late()


def test_where_all_leave_the_first_gives_up_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None begins before one has ended, however young they are, and nobody answers requests."""
    monkeypatch.setenv("WEBSOCKET_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(leaving, "_ALL_LEAVE_S", 0.0)
    monkeypatch.setattr(leaving, "children_of", lambda *_, **__: [os.getpid(), 1])
    handlers: list[Any] = [object()]
    search = leaving._Search("soon", 7, monotonic() + 1, restarting)
    folder = search._folder
    with contextlib.closing(search):
        assert search.give(handlers) == handlers
        assert search._is_late(), "one begins, for all that is known"
        search._deadline = monotonic() + 60
        monkeypatch.setattr(folder, "marked", lambda: {os.getpid(), 1})
        assert search.give(handlers) == handlers
        assert not search._is_late()
        monkeypatch.undo()
        assert folder.marked() == {os.getpid()}
    assert os.listdir(folder.path) == []


def test_a_server_whose_new_processes_have_died_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins others when this one has ended, or another one that leaves."""
    monkeypatch.setenv("WEBSOCKET_RUNTIME_DIR", str(tmp_path))
    children = [os.getpid(), 1]
    monkeypatch.setattr(leaving, "children_of", lambda *_, **__: children)
    handlers: list[Any] = [object()]
    search = leaving._Search("to come", 7, monotonic() + 1, restarting)
    with contextlib.closing(search):
        assert search.give(handlers) == handlers
        assert search._is_late(), "one begins"
        children.remove(1)
        search._deadline = monotonic() + 60
        assert search.give(handlers) == handlers
        assert not search._is_late()
        assert search.reason() == "no other process took them in time"


@pytest.fixture
def younger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes that the own server has begun after this one."""
    monkeypatch.setenv("WEBSOCKET_RUNTIME_DIR", str(tmp_path))
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(subprocess.Popen(["sleep", "600"])) for _ in range(2)]
        children = [os.getpid(), *(each.pid for each in found)]
        monkeypatch.setattr(leaving, "children_of", lambda *_, **__: children)
        yield found
        for each in found:
            each.kill()


def begin_elsewhere(process: int, *, server: int = 7, at: float = math.inf) -> Path:
    """Have a process listen where those of another project meet."""
    folder = meeting.folder().with_name(f"dwebsocket-{os.geteuid()}-h1-abc")
    folder.mkdir(0o700, exist_ok=True)
    stamp = int(min(at, since_boot()) * 1e9)
    (folder / f"{stamp:020}-{process}-{server}-{meeting._container()}").touch()
    return folder


@pytest.mark.parametrize("heirs", ["to come", "soon"])
def test_new_processes_that_cannot_be_heirs_are_not_waited_for(
    younger: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, heirs: Heirs
) -> None:
    """After a change of SECRET_KEY: meanwhile connections would hear nothing of the new ones."""
    monkeypatch.setattr(leaving, "_ALL_LEAVE_S", 0.0)
    handlers: list[Any] = [object()]
    search = leaving._Search(heirs, 7, monotonic() + 1, restarting)
    with contextlib.closing(search):
        begin_elsewhere(younger[0].pid)
        assert search.give(handlers) == handlers
        assert search._is_late(), "the other one may be an heir"
        search._deadline = monotonic() + 60
        begin_elsewhere(younger[1].pid)
        assert search.give(handlers) == handlers
        assert not search._is_late()
        reason = "the new processes have another SECRET_KEY, " if heirs == "to come" else "no other"
        assert (search.reason() or "").startswith(reason)


def test_a_new_master_whose_processes_cannot_be_heirs_is_not_waited_for(
    younger: list[subprocess.Popen[bytes]],
) -> None:
    """As gunicorn begins one at USR2: the children of that are the ones that begin elsewhere."""
    master, other = younger
    handlers: list[Any] = [object()]
    search = leaving._Search("to come", 7, monotonic() + 60, restarting)
    with contextlib.closing(search):
        search._folder.marked = lambda: {other.pid}  # type: ignore[method-assign]
        begin_elsewhere(os.getpid(), server=master.pid)
        assert search.give(handlers) == handlers
        assert not search._is_late()


def test_an_heir_of_another_server_goes_on_where_the_own_ones_cannot(
    younger: list[subprocess.Popen[bytes]],
) -> None:
    """It has not changed its settings."""
    search = leaving._Search("to come", 7, monotonic() + 60, restarting)
    with contextlib.closing(search):
        for each in younger:
            begin_elsewhere(each.pid)
        assert search._names(with_others=False) == []
        listener, name = search._folder.listen(8)
        listener.close()
        other = name.replace(f"-{os.getpid()}-", "-1-")
        (search._folder.path / other).touch()
        assert search._is_worth_while()
        assert search._names(with_others=False) == [other]


def test_processes_of_other_projects_are_no_reason_not_to_wait(
    younger: list[subprocess.Popen[bytes]],
) -> None:
    """In another container they may have the same numbers, and anybody can make such a folder."""
    handlers: list[Any] = [object()]
    search = leaving._Search("to come", 7, monotonic() + 0.3, restarting)
    with contextlib.closing(search):
        for each in younger:
            begin_elsewhere(each.pid, server=8)
            folder = begin_elsewhere(each.pid, at=since_boot() - 60)
        search.give(handlers)
        assert search._is_late()
        for each in younger:
            begin_elsewhere(each.pid)
        folder.chmod(0o755)
        search._deadline = monotonic() + 0.3
        search.give(handlers)
        assert search._is_late()


def test_processes_of_another_container_have_numbers_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their folder may be the same. In each gunicorn is process 1, and its worker another one."""
    monkeypatch.setenv("WEBSOCKET_RUNTIME_DIR", str(tmp_path))
    server = os.getppid()
    monkeypatch.setattr(meeting, "_container", lambda: 1)
    folder = meeting.Folder()
    listener, name = folder.listen(server)
    folder.mark()
    monkeypatch.setattr(meeting, "_container", lambda: 2)
    search = leaving._Search("of others", server, monotonic() + 60, restarting)
    with contextlib.closing(listener), contextlib.closing(search):
        assert search._names() == [name]
        assert search._folder.marked() == {os.getpid()}
        search._heirs = "to come"
        assert search._names(with_others=False) == []
    monkeypatch.setattr(meeting, "_container", lambda: 1)
    assert folder.marked() == {os.getpid()}
    folder.close()


def test_marks_of_killed_processes_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next one that listens."""
    monkeypatch.setenv("WEBSOCKET_RUNTIME_DIR", str(tmp_path))
    folder = meeting.Folder()
    with contextlib.closing(folder), subprocess.Popen(["sleep", "60"]) as running:
        killed = subprocess.Popen(["true"])
        killed.wait()
        for pid in (os.getpid(), running.pid, killed.pid):
            (folder.path / meeting._mark_of(pid)).touch()
        listener, _ = folder.listen(7)
        listener.close()
        assert folder.marked() == {running.pid}
        running.kill()


def test_a_process_is_not_found_before_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other processes would take it for a killed one, and remove its name."""
    monkeypatch.setenv("WEBSOCKET_RUNTIME_DIR", str(tmp_path))
    folder = meeting.Folder()
    found: list[list[str]] = []

    class Slow(socket.socket):
        def listen(self, backlog: int = 0, /) -> None:
            found.append([*filter(meeting._NAME_OF_ONE.match, os.listdir(folder.path))])
            super().listen(backlog)

    monkeypatch.setattr(meeting, "_unix_socket", lambda: Slow(socket.AF_UNIX, socket.SOCK_STREAM))
    listener, name = folder.listen(7)
    with contextlib.closing(folder), listener:
        assert found == [[]]
        assert os.listdir(folder.path) == [name]
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
            visitor.connect(folder._address(name))


def test_a_clock_that_is_set_back_makes_no_process_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that leave would take the new ones for elders, which are asked late."""
    monkeypatch.setenv("WEBSOCKET_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(time, "time_ns", itertools.count(2 * 10**18, -(10**9)).__next__)
    names = []
    with contextlib.closing(meeting.Folder()) as folder:
        for _ in range(2):
            listener, name = folder.listen(7)
            listener.close()
            names.append(name)
    assert names == sorted(names)


def names_of(*moments: float) -> list[str]:
    """Give the names of processes that began so many seconds after this one, the youngest first."""
    stamps = (meeting._born_at + int(1e9 * each) for each in sorted(moments, reverse=True))
    end = f"-9-{meeting._container()}"
    return [f"{stamp:020}-{number}{end}" for number, stamp in enumerate(stamps, 1)]


def test_the_newest_processes_are_those_of_one_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that leaves begins with another one; elders are taken where there is none."""
    names = names_of(-5, 100, 105.5, 106)
    monkeypatch.setattr(os, "getpid", lambda: 3)
    assert meeting.newest(names, with_elders=True) == names[:3]
    monkeypatch.setattr(os, "getpid", lambda: 4)
    assert meeting.newest(names, with_elders=True) == [names[1], names[2], names[0]]
    monkeypatch.setattr(os, "getpid", lambda: 3)
    assert meeting.newest(names_of(50, 100), with_elders=False) == names_of(50, 100)[:1]
    assert meeting.newest(names_of(-5, -7), with_elders=False) == []
    assert meeting.newest(names_of(-5, -7), with_elders=True) == names_of(-5, -7)
    assert meeting.newest([], with_elders=True) == []


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"object": object()}, "JSON cannot represent"),
        ({"number": float("nan")}, "JSON cannot represent"),
        ({1: "a key that is no text"}, "no dict of plain values"),
        ({"pair": (1, 2)}, "no dict of plain values"),
        (["a", "list"], "no dict of plain values"),
        ({"text": "x" * 65536}, "more than 65536 bytes"),
    ],
)
def test_state_that_cannot_move(state: Any, reason: str) -> None:
    """The reason says why."""
    with pytest.raises(offers.Obstacle, match=reason):
        offers.state_of(SimpleNamespace(state=state))  # type: ignore[arg-type]


def test_state_that_moves() -> None:
    """Comes as it was."""
    state = {"a": [1, 2.5, None, True, {"b": "ä"}], "text": "中" * 20000}
    assert offers.state_of(SimpleNamespace(state=state)) == state  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "theirs", "is_same"),
    [
        (None, None, True),
        (None, 1, False),
        (1, 1.0, True),
        ("1", 1, False),
        ({"a", "b", "c"}, {"c", "b", "a"}, True),
        ((1, "a"), (1, "b"), False),
        (Path("/a"), Path("/a"), True),
        (Path("/a"), "/a", False),
    ],
)
def test_version_is_any_comparable_value(own: object, theirs: object, is_same: bool) -> None:
    """A set has its members in another order in each process."""
    assert moving.is_version(own, repr(theirs)) is is_same
    assert moving.is_version({"b", "a"}, "{'a', 'b'}")
    assert moving.is_version({"b", "a"}, "{'b', 'a'}")


def test_this_process_is_no_worker_and_takes_nothing() -> None:
    """Tests and commands neither listen nor give."""
    assert arriving.host() is None
    arriving.begin()
    assert arriving._listener is None


def test_two_ends_of_a_process_drain_nothing_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM and the exit come on two threads: both close connections that are not spared yet."""
    entered, go_on = threading.Event(), threading.Event()
    is_spared = False

    def spare() -> None:
        nonlocal is_spared
        entered.set()
        go_on.wait(TIMEOUT_S)
        is_spared = True

    handler = SimpleNamespace(
        websocket=SimpleNamespace(_connection=SimpleNamespace(id=1, spare=spare))
    )
    monkeypatch.setattr(arriving, "host", lambda: hosts.Host(1, Client("gunicorn", -1, bytes)))
    monkeypatch.setattr(arriving, "stop", lambda: None)
    monkeypatch.setattr(moving, "survivors", lambda: [handler])
    monkeypatch.setattr(leaving.offers, "obstacle", lambda _: None)
    monkeypatch.setattr(leaving._Search, "give", lambda *_: [])
    own, seen = leaving.Leaving(), []
    order: tuple[float, Heirs, Callable[..., Any]] = (10.0, "to come", restarting)
    first = threading.Thread(target=own.begin, args=order)
    first.start()
    assert entered.wait(TIMEOUT_S)

    def begin_again() -> None:
        own.begin(*order)
        seen.append(is_spared)

    second = threading.Thread(target=begin_again)
    second.start()
    second.join(0.05)
    go_on.set()
    for thread in (first, second):
        thread.join(TIMEOUT_S)
    own.join(TIMEOUT_S)
    assert seen == [True]


def test_a_handler_that_cannot_be_asked_stays_and_the_others_move(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its class is named once, with a traceback."""
    moved: list[object] = []
    given = threading.Event()

    def handler_of(number: int, plan: str) -> Any:
        connection = SimpleNamespace(id=number, spare=lambda: moved.append(number))
        return SimpleNamespace(
            websocket=SimpleNamespace(_connection=connection), _plan=SimpleNamespace(name=plan)
        )

    def obstacle(handler: Any) -> None:
        if handler._plan.name == "Broken":
            raise AttributeError("no group")

    def give(_: object, handlers: list[Any]) -> list[Any]:
        moved.append([each.websocket._connection.id for each in handlers])
        given.set()
        return []

    handlers = [handler_of(1, "Broken"), handler_of(2, "Whole"), handler_of(3, "Broken")]
    monkeypatch.setattr(arriving, "host", lambda: hosts.Host(1, Client("gunicorn", -1, bytes)))
    monkeypatch.setattr(arriving, "stop", lambda: None)
    monkeypatch.setattr(moving, "survivors", lambda: handlers)
    monkeypatch.setattr(offers, "obstacle", obstacle)
    monkeypatch.setattr(offers, "_reported", set())
    monkeypatch.setattr(leaving._Search, "give", give)
    own = leaving.Leaving()
    own.begin(10.0, "to come", restarting)
    assert given.wait(TIMEOUT_S)
    own.join(TIMEOUT_S)
    assert moved == [2, [2]]
    assert [own.moves(each.websocket._connection) for each in handlers] == [False, True, False]
    (record,) = caplog.records
    assert "Broken are closed with 1012" in record.getMessage()
    assert record.exc_info
    assert isinstance(record.exc_info[1], AttributeError)


def test_an_heir_is_silent_as_long_as_it_is_asked_nothing(
    links: tuple[Link, Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that is slow to park, or messages of groups that are late, cost no heir."""
    monkeypatch.setattr(leaving, "_SILENCE_S", 0.05)
    monkeypatch.setattr(leaving, "_SLOW_S", TIMEOUT_S)
    monkeypatch.setattr(offers, "offer_of", lambda handler: {"places": []})
    moves: list[moving.Move] = []
    ends: list[bool] = []
    handler: Any = SimpleNamespace(
        websocket=SimpleNamespace(_is_finished=False),
        _begin_move=moves.append,
        _end_move=lambda *, has_parted: ends.append(has_parted),
    )
    left: list[Any] = []
    own, heir = links
    passage = leaving._Passage(own._socket, monotonic() + TIMEOUT_S)
    giver = threading.Thread(target=lambda: left.extend(passage.give([handler])))
    giver.start()
    try:
        heir.send(Frame(READY, {}))
        threading.Event().wait(1)
        monkeypatch.setattr(leaving, "_SILENCE_S", TIMEOUT_S)
        moves[0].park()
        frame = next(heir.frames(), None)
        assert frame is not None
        assert (frame.kind, frame.head["number"]) == (OFFER, 0)
        heir.send(Frame(NO, NO_HERE))
    finally:
        giver.join(TIMEOUT_S)
    assert (left, ends) == ([handler], [False])


def test_handlers_go_on_until_the_heir_has_loaded_the_project(
    links: tuple[Link, Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it never does, as it is stopped by a debugger: another one may take them."""
    monkeypatch.setattr(leaving, "_SILENCE_S", 0.05)
    moves: list[moving.Move] = []
    handler: Any = SimpleNamespace(_begin_move=moves.append)
    passage = leaving._Passage(links[0]._socket, monotonic() + TIMEOUT_S)
    assert passage.give([handler]) == [handler]
    assert (moves, passage.busy) == ([], [])


def test_a_handler_that_is_slow_to_park_comes_later(links: tuple[Link, Link]) -> None:
    """It goes on meanwhile. The heir has not refused it."""
    ends: list[bool] = []
    handler: Any = SimpleNamespace(
        websocket=SimpleNamespace(_connection=SimpleNamespace(go_on=lambda: None)),
        _begin_move=lambda move: None,
        _end_move=lambda *, has_parted: ends.append(has_parted),
    )
    own, heir = links
    heir.send(Frame(READY, {}))
    passage = leaving._Passage(own._socket, monotonic() + TIMEOUT_S)
    assert passage.give([handler]) == []
    assert (passage.busy, ends) == ([handler], [False])


def test_reasons_of_which_each_connection_has_its_own_do_not_fill_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A deploy that takes the history off groups has the name of each group in one."""
    monkeypatch.setattr(offers, "_reported", set())
    monkeypatch.setattr(records, "_floods", {})
    for number in range(500):
        offers.report("Game", f"the group 'game-{number}' has no history now")
    assert "'game-0'" in caplog.messages[0]
    # A hundred, and more where the test takes seconds.
    assert len(caplog.records) < 500


class Parked:
    """Stands for a handler that parks at once, and for its connection."""

    _plan = SimpleNamespace(name="Parked")
    is_still = True

    def __init__(self) -> None:
        self._is_finished = False
        self.websocket: Any = self
        self._connection: Any = self
        self.ends: list[bool] = []
        self.closes: list[tuple[int, str]] = []

    def _begin_move(self, move: moving.Move) -> None:
        move.park()

    def _end_move(self, *, has_parted: bool) -> None:
        self.ends.append(has_parted)

    def go_on(self) -> None:
        pass

    def halt(self) -> None:
        pass

    def end(self) -> None:
        return None

    def close(self, code: int, reason: str) -> None:
        if code > 0xFFFF:
            raise OverflowError("out of range integral type conversion attempted")
        self.closes.append((code, reason))

    def take_back(self, code: int, reason: str) -> None:
        self.closes.append((code, reason))


@pytest.fixture
def parked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parked]:
    """A handler that may move. Nothing was reported before."""
    monkeypatch.setattr(offers, "offer_of", lambda handler: {"places": []})
    monkeypatch.setattr(offers, "_reported", set())
    monkeypatch.setattr(leaving, "_SILENCE_S", TIMEOUT_S)
    return Parked()


def begin_passage(own: Link, heir: Link, parked: Parked) -> tuple[list[Any], threading.Thread]:
    """Offer a handler to an heir. Give the list for what is left, and the thread that fills it."""
    passage = leaving._Passage(own._socket, monotonic() + TIMEOUT_S)
    handler: Any = parked
    left: list[Any] = []
    giver = threading.Thread(target=lambda: left.extend(passage.give([handler])))
    giver.start()
    heir.send(Frame(READY, {}))
    assert next(heir.frames(), None) is not None
    return left, giver


@pytest.mark.parametrize(
    "answer",
    [
        Frame(0, {"number": 0}),
        Frame(77, {"number": 0}),
        Frame(NO, {}),
        Frame(NO, {"number": 0}),
        Frame(NO, {**NO_HERE, "number": []}),
        Frame(NO, {**NO_HERE, "elsewhere": False, "code": 99999}),
        Frame(YES, {"number": 0}),
        Frame(TAKEN, {"number": 0}),
        Frame(LOST, {"number": 0}),
        None,
    ],
    ids=str,
)
def test_an_heir_whose_answers_are_none_is_passed_over(
    links: tuple[Link, Link],
    parked: Parked,
    caplog: pytest.LogCaptureFixture,
    answer: Frame | None,
) -> None:
    """Others are asked, and the log has a line."""
    own, heir = links
    left, giver = begin_passage(own, heir, parked)
    if answer is None:
        heir._socket.sendall(b"\xff" * 100)
    else:
        heir.send(answer)
    giver.join(TIMEOUT_S)
    assert left == [parked]
    assert (parked.ends, parked.closes) == ([False], [])
    (record,) = caplog.records
    assert "Another process cannot go on with WebSockets of this one" in record.getMessage()
    assert record.exc_info is None


def test_a_mistake_that_each_offer_meets_is_logged_once(
    links: tuple[Link, Link],
    parked: Parked,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With its traceback. All connections are closed here."""
    monkeypatch.setattr(offers, "offer_of", {}.__getitem__)
    passage = leaving._Passage(links[0]._socket, monotonic() + TIMEOUT_S)
    links[1].send(Frame(READY, {}))
    handlers: list[Any] = [parked] * 3
    assert passage.give(handlers) == []
    assert parked.closes == [leaving.RESTARTING] * 3
    (record,) = caplog.records
    assert "Parked are closed with 1012" in record.getMessage()
    assert record.exc_info


def test_a_failure_in_one_passage_leaves_the_others(
    links: tuple[Link, Link],
    parked: Parked,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is a mistake of this package, so the log has it with its traceback."""
    own, heir = links
    monkeypatch.setattr(leaving.crossing, "Departure", None)
    left, giver = begin_passage(own, heir, parked)
    heir.send(Frame(YES, {"number": 0, "marks": [], "begun": {}, "places": {}}))
    giver.join(TIMEOUT_S)
    assert left == [parked]
    assert (parked.ends, parked.closes) == ([False], [])
    (record,) = caplog.records
    assert record.exc_info is not None


def test_a_refused_thread_ends_one_passage(
    links: tuple[Link, Link],
    parked: Parked,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The system may give the next one a thread."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(unpatched, "start_thread", refuse)
    passage = leaving._Passage(links[0]._socket, monotonic() + TIMEOUT_S)
    handler: Any = parked
    assert passage.give([handler]) == [handler]
    (record,) = caplog.records
    assert "can't start new thread" in record.getMessage()
    assert record.exc_info is None


def test_an_heir_that_is_silent_after_it_was_given_a_connection_is_reported(
    links: tuple[Link, Link],
    parked: Parked,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may be stopped. The client gets 1012: nobody knows what it has taken."""
    own, heir = links
    monkeypatch.setattr(leaving, "_SILENCE_S", 0.3)

    def give(self: leaving._Passage, number: int, item: leaving._Item, *_: object) -> None:
        item.stage = GIVE

    monkeypatch.setattr(leaving.crossing.Departure, "cut", lambda *_: [])
    monkeypatch.setattr(leaving.places, "depart", lambda *_: [])
    monkeypatch.setattr(leaving.markers, "Ends", lambda *_: SimpleNamespace(of_rooms=dict))
    monkeypatch.setattr(leaving.markers, "publish", lambda _: None)
    monkeypatch.setattr(leaving._Passage, "_give", give)
    _, giver = begin_passage(own, heir, parked)
    heir.send(Frame(YES, {"number": 0, "marks": [], "begun": {}, "places": {}}))
    giver.join(TIMEOUT_S)
    assert (parked.ends, parked.closes) == ([False], [leaving.RESTARTING])
    assert [record.getMessage() for record in caplog.records] == [
        "Another process cannot go on with WebSockets of this one: it did not answer in time",
        "WebSockets of Parked are closed with 1012 and not handed over: "
        "the process that was to go on did not answer",
    ]


def test_what_an_heir_of_another_server_did_not_take_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The own server has ended, and none is waited for."""
    monkeypatch.setenv("WEBSOCKET_RUNTIME_DIR", str(tmp_path))
    search = leaving._Search("of others", 7, monotonic() + 60, restarting)
    with contextlib.closing(search):
        assert search.reason() is None
        search._tried["somebody"] = monotonic()
        assert search.reason() == "no other process took them in time"
        search.end = lambda: (1001, "going away")
        assert search.reason() is None, "the site ends, as it was told to"


def test_a_system_without_threads_makes_no_heir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The WebSocket with which it would have begun opens all the same."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setenv("WEBSOCKET_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(arriving, "host", lambda: hosts.Host(1, Client("gunicorn", -1, bytes)))
    monkeypatch.setattr(arriving, "_has_stopped", False)
    monkeypatch.setattr(unpatched, "start_thread", refuse)
    arriving.begin()
    assert arriving._listener is None
    assert os.listdir(meeting.folder()) == []


def test_wrong_settings_of_groups_keep_no_process_from_beginning_or_ending(
    monkeypatch: pytest.MonkeyPatch,
    override: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A worker begins to listen as it starts: it serves pages all the same."""
    override(WEBSOCKET_GROUPS={"default": {"BACKEND": "dwebsocket.groups.redis"}})
    monkeypatch.setattr(arriving, "host", lambda: hosts.Host(1, Client("gunicorn", -1, bytes)))
    monkeypatch.setattr(arriving, "_has_stopped", False)
    monkeypatch.setattr(offers, "_reported", set())
    monkeypatch.setattr(moving, "survivors", lambda: [SimpleHandler()])
    arriving.begin()
    assert arriving._listener is None
    own = leaving.Leaving()
    own.begin(10.0, "to come", restarting)
    own.join(TIMEOUT_S)
    assert [text.partition(": ")[0] for text in caplog.messages] == [
        "This process cannot go on with WebSockets of others",
        "WebSockets of all handlers are closed with 1012 and not handed over",
    ]
    assert all("'LOCATION'" in text for text in caplog.messages)


def test_a_system_without_proc_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each part of a process that begins asks for it."""

    def refuse(*_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setenv("WEBSOCKET_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(arriving, "host", lambda: hosts.Host(1, Client("gunicorn", -1, bytes)))
    monkeypatch.setattr(arriving, "_has_stopped", False)
    monkeypatch.setattr(offers, "_reported", set())
    monkeypatch.setattr(meeting.Folder, "listen", refuse)
    monkeypatch.setattr(local.sys, "platform", "linux")
    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: path != "/proc/self/fd" and exists(path))
    for _ in range(2):
        arriving.begin()
    (line,) = caplog.messages
    assert line == (
        "This process cannot go on with WebSockets of others: [Errno 2] No such file or directory: "
        "is /proc mounted?"
    )
    backend: Any = local.Backend("default", BackendSettings(runtime_dir=str(tmp_path / "missing")))
    with pytest.raises(GroupUnavailable, match=r": is /proc mounted\?$"):
        backend.subscribe("room")


@pytest.mark.parametrize("state", [{}, {"n": 1}])
def test_an_empty_state_takes_no_memory(state: dict[str, int]) -> None:
    """A handler that has moved has a dict for its state only where the state has values."""

    class Chat(WebSocketHandler):
        survives = True

    as_view: Any = Chat.as_view()
    handler = as_view.view_class()
    handler._resume(state, None)
    assert ("state" in vars(handler)) is bool(state)
    assert handler.state == state


@pytest.mark.parametrize(
    ("cookies", "moved"),
    [
        ("", "sessionid=new"),
        ("a=b", "a=b; sessionid=new"),
        ("a=b; sessionid=old; c=d", "a=b; c=d; sessionid=new"),
        ("sessionid=new; a=b", "sessionid=new; a=b"),
    ],
)
def test_a_request_moves_with_its_present_session(cookies: str, moved: str) -> None:
    """The handshake may have begun the session, or given it another key."""
    request = RequestFactory().get("/", headers={"cookie": cookies})
    assert requests.meta_of(request)["HTTP_COOKIE"] == cookies
    request.session = SimpleNamespace(session_key="new")  # type: ignore[assignment]
    assert requests.meta_of(request)["HTTP_COOKIE"] == moved


def test_a_path_that_is_no_utf_8_moves_to_an_asgi_server() -> None:
    """The heir reads the path as its server reads that of a handshake."""
    environ = {"wsgi.url_scheme": "http", "PATH_INFO": "/x/\xe4/", "REQUEST_METHOD": "GET"}
    server: Any = SimpleNamespace(state={})
    assert requests.scope_of(environ, server)["path"] == "/x/\ufffd/"

"""The stand-in for the engine behaves as the engine does: both are tested."""

from __future__ import annotations

import gc
import selectors
import threading
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwebsocket import _core
from dwebsocket.compat.without_engine import (
    groups,
    handshake,
    hub,
    mailbox,
    missing,
    permit,
    threads,
)
from dwebsocket.exceptions import UnsupportedServer
from support.waiting import eventually

PLAIN = SimpleNamespace(
    Groups=groups.Groups,
    Hub=hub.Hub,
    Mailbox=mailbox.Mailbox,
    Permit=permit.Permit,
    Threads=threads.Threads,
    wait_for_none_open=permit.wait_for_none_open,
)
GOOD = {
    "method": "GET",
    "http_version": (1, 1),
    "host": "example.com",
    "content_length": None,
    "transfer_encoding": None,
    "upgrade": "websocket",
    "connection": "keep-alive, Upgrade",
    "version": "13",
    "key": "dGhlIHNhbXBsZSBub25jZQ==",
    "protocols": None,
    "extensions": None,
}


@pytest.fixture(params=[_core, PLAIN], ids=["engine", "without"])
def parts(request: pytest.FixtureRequest) -> Any:
    """The engine's parts, and those in plain Python."""
    return request.param


class Box:
    """A member of groups, and the tokens that were announced for it."""

    def __init__(self, parts: Any, capacity: int = 100, **options: Any) -> None:
        self.hub = parts.Hub()
        self.mailbox = parts.Mailbox(capacity, self.hub, 7, **options)

    def wait(self) -> list[int]:
        """Wait for an announcement."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.hub.fileno(), selectors.EVENT_READ)
            assert selector.select(10)
        return list(self.hub.drain())

    def take(self, count: int) -> list[str | bytes]:
        """Wait for messages, and take them."""
        found: list[str | bytes] = []
        while len(found) < count:
            self.wait()
            while (message := self.mailbox.pop()) is not None:
                found.append(message)
        return found


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"method": "POST"},
        {"http_version": (1, 0)},
        {"host": None},
        {"content_length": "0"},
        {"content_length": "3"},
        {"transfer_encoding": "chunked"},
        {"upgrade": None},
        {"upgrade": "h2c, WebSocket"},
        {"connection": "close"},
        {"version": "8"},
        {"version": None},
        {"key": None},
        {"key": "short=="},
        {"key": " dGhlIHNhbXBsZSBub25jZR== "},
        {"protocols": "chat.v2, , chat.v1"},
        {"protocols": "chat, chat"},
        {"protocols": "no token"},
        {"protocols": " , "},
        {"extensions": ""},
        {"extensions": "permessage-deflate; client_max_window_bits, x-one; a=1; b"},
        {"extensions": 'x-one; a="to\\ken"'},
        {"extensions": 'x-one; a="b,c"'},
        {"extensions": 'x-one; a="b'},
        {"extensions": "x-one; a="},
    ],
    ids=str,
)
def test_a_handshake_is_judged_as_by_the_engine(change: dict[str, Any]) -> None:
    """The same status, the same reason, the same subprotocols."""
    request: Any = {**GOOD, **change}
    assert handshake.validate_handshake(**request) == _core.validate_handshake(**request)


@settings(max_examples=100, deadline=None)
@given(st.text('abZ ,;="\\\t-', max_size=12), st.sampled_from(["protocols", "extensions"]))
def test_any_list_is_judged_as_by_the_engine(text: str, field: str) -> None:
    """Any text that a client has written into a header with a list."""
    request: Any = {**GOOD, field: text}
    assert handshake.validate_handshake(**request) == _core.validate_handshake(**request)


@pytest.mark.parametrize(
    ("subprotocol", "headers"),
    [
        (None, []),
        ("chat.v1", [("Set-Cookie", "a=b"), ("Content-Length", "3"), ("sec-websocket-key", "x")]),
        (None, [("X-Latin", "\xe9\t")]),
        (None, [("X-Broken", "a\r\nb")]),
        (None, [("X-Snow", "\N{SNOWMAN}")]),
        (None, [("a b", "c")]),
        ("no token", []),
    ],
)
def test_the_response_is_written_as_by_the_engine(
    subprotocol: str | None, headers: list[tuple[str, str]]
) -> None:
    """Headers that would break it are refused with the same words."""

    def written(parts: Any) -> bytes | str:
        try:
            return bytes(parts.response_head("key", subprotocol, headers))
        except ValueError as error:
            return str(error)

    assert written(handshake) == written(_core)


def test_names_and_codes_are_judged_as_by_the_engine() -> None:
    """Subprotocols, and the codes that may be sent."""
    for text in ("", "chat.v1", "a b", "é", "a,b", "x\n"):
        assert handshake.is_token(text) == _core.is_token(text)
    for code in range(5100):
        assert handshake.may_send_close_code(code) == _core.may_send_close_code(code)
    assert handshake.choose_subprotocol(["b", "a"], ["a", "b"]) == "b"
    assert handshake.choose_subprotocol(["c"], ["a", "b"]) is None


def test_a_place_is_free_when_the_last_permit_is_released() -> None:
    """The connection and its view hold it together."""
    before = permit.open_connections()
    first = permit.Permit.claim(before + 1)
    assert first is not None
    assert permit.Permit.claim(before + 1) is None
    second = first.share()
    first.release()
    first.release()
    assert permit.open_connections() == before + 1
    with pytest.raises(ValueError, match="released"):
        first.share()
    del second
    gc.collect()
    assert permit.open_connections() == before


def test_messages_wait_for_their_member_in_order(parts: Any) -> None:
    """Text as text and bytes as bytes; those with an excluded key get none."""
    of = parts.Groups("close")
    one, two = Box(parts), Box(parts)
    assert of.join("room", one.mailbox, b"1" * 16) is True
    assert of.join("room", two.mailbox, b"2" * 16) is False
    assert (of.count("room"), of.counts()) == (2, [("room", 2)])
    assert of.publish("room", "for one", [b"2" * 16]) is None
    assert of.publish("room", b"for both", []) is None
    assert one.take(2) == ["for one", b"for both"]
    assert two.take(1) == [b"for both"]
    assert of.names_of(two.mailbox) == ["room"]
    assert of.leave("room", two.mailbox) is False
    assert of.leave("room", two.mailbox) is None
    one.mailbox.end()
    assert (of.count("room"), of.counts()) == (0, [])
    assert of.join("room", one.mailbox, b"1" * 16) is None
    counted = of.statistics()
    assert (counted["published"], counted["delivered"]) == (2, 3)


def test_a_group_is_closed_behind_its_messages(parts: Any) -> None:
    """A member takes what was published before first; one that is no connection stays."""
    of = parts.Groups("close")
    box, channel = Box(parts), Box(parts, is_closable=False)
    of.join("room", box.mailbox, b"1" * 16)
    of.join("room", channel.mailbox, b"2" * 16)
    of.publish("room", "last", [])
    of.close("room", 4000, "over")
    assert box.take(1) == ["last"]
    while box.mailbox.close_frame() is None:
        box.wait()
    assert box.mailbox.close_frame() == (4000, "over")
    assert channel.take(1) == ["last"]
    assert channel.mailbox.close_frame() is None
    for code, reason in [(1005, ""), (1000, "x" * 124)]:
        with pytest.raises(ValueError, match=r"code|reason"):
            of.close("room", code, reason)


@pytest.mark.parametrize(
    ("policy", "kept", "dropped"),
    [
        ("drop_newest", ["aaaa", "bbbb"], ("dropped_newest", 2)),
        ("drop_oldest", ["cccc", "dddd"], ("dropped_oldest", 2)),
        ("latest", ["cccc", "dddd"], ("dropped_for_latest", 2)),
        ("close", [], ("closed", 1)),
    ],
)
def test_a_slow_member_misses_messages_by_its_policy(
    parts: Any, policy: str, kept: list[str], dropped: tuple[str, int]
) -> None:
    """A message without room is dropped, or closes the member; both are counted and reported."""
    of = parts.Groups(policy)
    box, behind = Box(parts, capacity=8), Box(parts)
    of.join("room", box.mailbox, b"1" * 16)
    of.join("room", behind.mailbox, b"2" * 16)
    for message in ("aaaa", "bbbb", "cccc", "dddd"):
        of.publish("room", message, [])
    # The other one has all, so this one has had its chance, too.
    assert behind.take(4)[-1] == "dddd"
    box.wait()
    eventually(lambda: of.statistics().get(dropped[0], 0) == dropped[1])
    found = []
    while (message := box.mailbox.pop()) is not None:
        found.append(message)
    assert found == kept
    assert box.mailbox.close_frame() == ((1013, "too slow") if policy == "close" else None)
    assert of.take_notice(10) == ("slow", ["room"])
    of.end_notices()
    assert of.take_notice(None) is of.take_notice(None) is None


def test_threads_share_the_tokens_of_a_hub(parts: Any) -> None:
    """Each token goes to one of them; closing the hub ends all."""
    made = parts.Hub(for_threads=True)
    found: list[int] = []
    all_found = threading.Event()

    def work() -> None:
        turn = None
        while (work := made.next(turn)) is not None:
            token, turn, _ = work
            found.append(token)
            if len(found) == 100:
                all_found.set()

    crew = [threading.Thread(target=work) for _ in range(3)]
    for thread in crew:
        thread.start()
    for token in range(100):
        made.announce(token)
    assert all_found.wait(10)
    made.close()
    for thread in crew:
        thread.join(10)
    assert sorted(found) == list(range(100))


def test_lanes_of_a_hub_have_turns(parts: Any) -> None:
    """A token of the lane that has had none for longest comes first; those of one in order."""
    made = parts.Hub(for_threads=True)
    lane = 1 << 40
    for token in (lane + 1, lane + 2, lane + 3):
        made.announce(token)
    found = [made.next(None, 0)]
    for token in (2 * lane + 1, 2 * lane + 2):
        made.announce(token)
    while len(found) < 5:
        found.append(made.next(found[-1][1], 0))
    tokens = [token for token, _, _ in found]
    assert tokens == [lane + 1, 2 * lane + 1, lane + 2, 2 * lane + 2, lane + 3]


def test_a_hub_in_a_circle_leaves_no_descriptor_open(parts: Any) -> None:
    """The garbage collector ends the parts of a circle in any order."""
    for _ in range(10):
        made = Box(parts)
        made.hub.fileno()
        vars(made)["itself"] = made
    del made
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.collect()
    assert caught == []


def test_a_view_has_a_thread(parts: Any) -> None:
    """One that is not the caller's."""
    ran: list[int] = []
    done = threading.Event()

    def work() -> None:
        ran.append(threading.get_ident())
        done.set()

    parts.Threads().run(work, 256 * 1024)
    assert done.wait(10)
    assert ran != [threading.get_ident()]


def test_a_loop_without_descriptors_is_woken_once() -> None:
    """The first token calls; the others wait with it."""
    made = hub.Hub()
    calls: list[None] = []
    made.on_ready(lambda: calls.append(None))
    made.announce(1)
    made.announce(2)
    assert (len(calls), made.drain()) == (1, [1, 2])
    made.announce(3)
    assert len(calls) == 2


def test_what_needs_the_engine_says_so() -> None:
    """With what it is, why, and what to use instead."""
    with pytest.raises(UnsupportedServer) as caught:
        missing.unavailable("This")()
    assert str(caught.value) == (
        "This is not possible on this system: dwebsocket's engine runs on Linux and macOS. On "
        "Windows use WSL 2 or a container."
    )
    with pytest.raises(UnsupportedServer, match=r"^The exchange of groups with other processes "):
        groups.Groups("close").encode("room", "hello", [])
    with pytest.raises(UnsupportedServer, match=r"^Presence in groups "):
        groups.Presence(groups.Groups("close")).enter()


def test_the_last_permit_wakes_those_that_wait_for_it(parts: Any) -> None:
    """Threads and hubs; without a permit there is nothing to wait for."""
    eventually(lambda: parts.wait_for_none_open() is None, what="no connection is left")
    first, last = parts.Permit.claim(None), parts.Permit.claim(None)
    waits, told = [parts.wait_for_none_open() for _ in range(3)], parts.Hub()
    waits[1].watch(told, 7)
    waits[2].watch(told, 8)
    waits[2].unwatch(told, 8)
    first.release()
    assert not waits[0].wait(0)
    assert waits[0].outcome() is None
    last.release()
    assert waits[0].wait(60)
    assert waits[0].outcome() is True
    assert told.drain() == [7]
    waits[2].watch(told, 9)
    assert told.drain() == [9]
    assert parts.wait_for_none_open() is None

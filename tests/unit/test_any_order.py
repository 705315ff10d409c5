"""
The public API, called in any order, by several threads, with any client at the other end.

Hypothesis writes the scripts, one for each thread and one for the client. Whatever they do, every
call returns or raises as its documentation says, each message is received once and in order, and
nothing is left. A thread that would wait for ever is found by the limit of its calls.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peer import Client, LiveWebSocket, all_given_back
from websockets.exceptions import InvalidState

from dwebsocket import ConnectionClosed, ReceiveTimeout, SendTimeout, WebSocket, conf
from dwebsocket.api.base import own_websocket

# Some messages of the client are JSON, and none is empty: `wait` gives None for nothing.
MESSAGES = st.sampled_from(["1", "[2]", '"three"', "fünf", "x" * 300, "{", b"bytes", b"\xff\x00"])
SECONDS = st.sampled_from([0, 0.001, 0.005])
CODES = st.sampled_from([None, 1000, 3000, 4999])


@dataclass
class Seen:
    """The messages that one thread has received, and its errors."""

    received: list[str | bytes] = field(default_factory=list)
    sent: list[str | bytes] = field(default_factory=list)
    surprises: list[BaseException] = field(default_factory=list)


Step = Callable[[WebSocket, Seen], None]


def note(seen: Seen, message: Any) -> None:
    """Remember a message, unless there was none."""
    if message is not None:
        assert isinstance(message, str | bytes)
        seen.received.append(message)


def receive(seconds: float) -> Step:
    """`receive` gives a message or one of two exceptions."""

    def step(websocket: WebSocket, seen: Seen) -> None:
        try:
            note(seen, websocket.receive(seconds))
        except (ReceiveTimeout, ConnectionClosed):
            pass

    return step


def areceive(seconds: float) -> Step:
    """As :func:`receive`, in a loop of the thread's own."""

    def step(websocket: WebSocket, seen: Seen) -> None:
        async def call() -> None:
            try:
                note(seen, await websocket.areceive(seconds))
            except (ReceiveTimeout, ConnectionClosed):
                pass

        asyncio.run(call())

    return step


def wait(seconds: float) -> Step:
    """`wait` of the original package gives None for all that is no message."""

    def step(websocket: WebSocket, seen: Seen) -> None:
        with suppress(ConnectionClosed):
            note(seen, websocket.wait(seconds))

    return step


def read(websocket: WebSocket, seen: Seen) -> None:
    """`read` never waits."""
    with suppress(ConnectionClosed):
        note(seen, websocket.read())


def send(message: str | bytes, strict: bool) -> Step:
    """`send` returns whether the message was taken; if strict, it raises."""

    def step(websocket: WebSocket, seen: Seen) -> None:
        try:
            if websocket.send(message, strict=strict):
                seen.sent.append(message)
            else:
                assert not strict
        except (ConnectionClosed, SendTimeout):
            pass

    return step


def send_json(data: Any) -> Step:
    """`send_json` sends text."""

    def step(websocket: WebSocket, seen: Seen) -> None:
        with suppress(ConnectionClosed):
            if websocket.send_json(data):
                seen.sent.append(json.dumps(data))

    return step


def close(code: int | None) -> Step:
    """`close` may be called by any thread, again and again."""

    def step(websocket: WebSocket, seen: Seen) -> None:
        websocket.close(code)
        assert websocket.closed

    return step


def look(websocket: WebSocket, seen: Seen) -> None:
    """The attributes of the end agree with each other."""
    with suppress(ConnectionClosed):
        assert websocket.count_messages() >= 0
        assert isinstance(websocket.has_messages(), bool)
    if (code := websocket.close_code) is not None:
        assert 1000 <= code <= 4999
        assert websocket.closed
    assert isinstance(websocket.close_reason, str)


STEPS = st.one_of(
    st.builds(receive, SECONDS),
    st.builds(areceive, SECONDS),
    st.builds(wait, SECONDS),
    st.builds(send, MESSAGES, st.booleans()),
    st.builds(send_json, st.sampled_from([None, 1, "two", [3], {"four": 4.5}])),
    st.builds(close, CODES),
    st.just(read),
    st.just(look),
)

# The client's actions: a message, a ping, silence for a moment, or an end.
ENDS = st.sampled_from(["close", "vanish", "violate", "stay"])


def talk(client: Client, messages: list[str | bytes], end: str) -> None:
    """Be the client. Whatever the views have done meanwhile is no failure."""
    try:
        for message in messages:
            client.send(message)
        if end == "close":
            client.close(4000, "enough")
        elif end == "violate":
            client.send_raw(b"\x83\x80\0\0\0\0")
        elif end == "vanish":
            client.vanish()
    except (OSError, InvalidState):
        # `websockets` raises the latter for a message behind a close frame.
        pass


def follow(websocket: WebSocket, script: list[Step], seen: Seen, own: bool) -> None:
    """Be a thread of the view's, or another one."""
    token = own_websocket.set(websocket) if own else None
    try:
        for step in script:
            step(websocket, seen)
    except BaseException as surprise:
        seen.surprises.append(surprise)
    finally:
        if token is not None:
            own_websocket.reset(token)


def is_part_of(part: list[Any], whole: list[Any]) -> bool:
    """Whether `part` comes in `whole`, in order."""
    rest = iter(whole)
    return all(any(each == found for found in rest) for each in part)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
@given(
    scripts=st.lists(st.lists(STEPS, max_size=8), min_size=1, max_size=3),
    messages=st.lists(MESSAGES, max_size=8),
    end=ENDS,
)
def test_any_order(scripts: list[list[Step]], messages: list[str | bytes], end: str) -> None:
    """Of the view's own thread and two others, while the client talks and goes."""
    with all_given_back():
        run_in_any_order(scripts, messages, end)


def run_in_any_order(scripts: list[list[Step]], messages: list[str | bytes], end: str) -> None:
    """Do so with one connection, and check what has come of it."""
    options = conf.Options.current(conf.overrides("test", {"text_type": str}))
    live = LiveWebSocket(WebSocket(), options, None, b"")
    everything = [Seen() for _ in scripts]
    threads = [
        threading.Thread(target=follow, args=(live.websocket, script, seen, number == 0))
        for number, (script, seen) in enumerate(zip(scripts, everything, strict=True))
    ]
    threads.append(threading.Thread(target=talk, args=(live.client, messages, end)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "somebody waits for ever"
    assert [surprise for seen in everything for surprise in seen.surprises] == []

    # Each thread has its part of the messages, in order, and none has another's.
    for seen in everything:
        assert is_part_of(seen.received, messages)
    came = [message for seen in everything for message in seen.received]
    for message in came:
        assert came.count(message) <= messages.count(message)
    # The client finds the messages that were taken, each thread's in order, unless it left or was
    # closed.
    if end == "stay":
        live.websocket.close(4001)
        found: list[str | bytes] = []
        while (message := live.client.receive()) is not None:
            found.append(message)
        for seen in everything:
            assert is_part_of(seen.sent, found)
        assert len(found) == sum(len(seen.sent) for seen in everything)
    live.websocket.close()
    live.client.vanish()
    assert live.websocket.closed

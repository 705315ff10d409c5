"""The contexts of handlers: shared where they are equal, seen on every thread, changed by none."""

from __future__ import annotations

import contextvars
import gc
import threading
from typing import Any
from weakref import ref

import pytest
from asgiref.local import Local
from django.core.signals import request_started

from dwebsocket.request import context
from dwebsocket.runners import handler_context

room: contextvars.ContextVar[Any] = contextvars.ContextVar("room")
local = Local()

needs_storage = pytest.mark.skipif(
    context.Storage is None, reason="this asgiref keeps no owner of values"
)


def of(value: Any, name: str = "") -> handler_context.HandlerContext:
    """Make the context of a handler whose middleware has set these."""
    own = contextvars.Context()
    own.run(room.set, value)
    if name:
        own.run(setattr, local, "name", name)
    return handler_context.shared(own)


def seen_in(its_context: handler_context.HandlerContext) -> list[Any]:
    """Return what code in the context sees, on another thread."""
    seen: list[Any] = []

    def look() -> None:
        seen.extend([room.get(), getattr(local, "name", None)])
        room.set("changed")
        local.name = "changed"

    thread = threading.Thread(target=its_context.run, args=(look,))
    thread.start()
    thread.join(10)
    return seen


@pytest.mark.parametrize("value", ["lobby", object()], ids=["shared", "own"])
def test_each_call_sees_the_same_on_any_thread(value: Any) -> None:
    """Also after a call that has changed its copy."""
    its_context = of(value, "ada")
    for _ in range(3):
        assert seen_in(its_context) == [value, "ada"]
    here: list[Any] = []
    its_context.run(lambda: here.extend([room.get(), local.name]))
    assert here == [value, "ada"]


@needs_storage
def test_equal_ones_are_one() -> None:
    """Whichever thread has handled the handshake."""
    made = [of("lobby", "ada")]
    thread = threading.Thread(target=lambda: made.append(of("lobby", "ada")))
    thread.start()
    thread.join(10)
    assert made[0] is made[1]
    assert of("lobby", "grace") is not made[0]
    assert of("hall", "ada") is not made[0]


def test_objects_are_not_shared_and_not_kept() -> None:
    """They may belong to one request."""

    class Request:
        pass

    request = Request()
    first, second = of(request), of(request)
    assert first is not second
    watched = ref(request)
    del request, first, second
    gc.collect()
    assert watched() is None


def test_equal_ones_of_two_requests_are_one() -> None:
    """Whatever sending has noted of the threads that served them."""

    def of_request() -> handler_context.HandlerContext:
        own = contextvars.Context()
        own.run(request_started.send, sender=None, environ={})
        return handler_context.shared(own)

    assert of_request() is of_request()


@needs_storage
def test_forgotten_with_the_last_handler() -> None:
    """Otherwise each language and each path prefix would stay for ever."""
    its_context = of("a room of its own")
    seen_in(its_context)
    watched = ref(its_context)
    gc.collect()
    before = len(handler_context._known)
    del its_context
    gc.collect()
    assert watched() is None
    assert len(handler_context._known) == before - 1


def test_many_threads() -> None:
    """No more copies than so many are kept."""
    its_context = of("lobby")
    settled = its_context._settled
    assert settled is not None
    settled.update((-n, contextvars.Context()) for n in range(handler_context._MOST_THREADS))
    assert seen_in(its_context)[0] == "lobby"
    assert len(settled) == 1
    assert seen_in(its_context)[0] == "lobby"

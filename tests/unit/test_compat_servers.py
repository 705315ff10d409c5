"""Handshakes where a version of a server lacks a private part."""

from __future__ import annotations

import asyncio
import io
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dwebsocket.compat import (
    cheroot,
    eventlet,
    gevent,
    granian,
    gunicorn,
    hypercorn,
    uwsgi,
    waitress,
    werkzeug,
)
from dwebsocket.compat.missing import MissingPart
from support.fresh import failures


class TestGunicorn:
    """Bodies, responses and workers."""

    def test_buffers(self) -> None:
        """Both are read; a body whose early bytes would be lost is none of gunicorn's."""
        unreader = SimpleNamespace(buf=io.BytesIO(b"below"))
        body = SimpleNamespace(buf=io.BytesIO(b"above "), reader=SimpleNamespace(unreader=unreader))
        assert gunicorn.has_buffers(body)
        assert gunicorn.buffered(body) == b"above below"
        for owner, name in ((unreader, "buf"), (body.reader, "unreader"), (body, "reader")):
            delattr(owner, name)
            assert not gunicorn.has_buffers(body)

    @pytest.mark.parametrize("missing", [None, "force_close", "headers_sent"])
    def test_response(self, missing: str | None) -> None:
        """Without either it is left as it is."""
        said: list[str] = []
        response = SimpleNamespace(headers_sent=False, force_close=lambda: said.append("closed"))
        if missing is not None:
            delattr(response, missing)

        def early_hints() -> object:
            return response

        gunicorn.finish_response({"wsgi.early_hints": early_hints})
        gunicorn.finish_response({"wsgi.early_hints": print})
        gunicorn.finish_response({})
        assert said == ([] if missing else ["closed"])

    def test_streams(self) -> None:
        """None where the writer has none."""
        assert gunicorn.streams(SimpleNamespace(streams=[1])) == [1]
        assert gunicorn.streams(io.StringIO()) is None

    def test_worker(self) -> None:
        """None where the signal's handler leads to none, or to one that lacks something."""

        class Worker:
            cfg = "its configuration"

            def handle_exit(self, number: int, frame: object) -> None:
                """Stands for gunicorn's."""

        before = signal.signal(signal.SIGTERM, Worker().handle_exit)
        try:
            assert isinstance(gunicorn.worker("cfg"), Worker)
            assert gunicorn.worker("cfg", "nr") is None
        finally:
            signal.signal(signal.SIGTERM, before)
        assert gunicorn.worker("cfg") is None

    def test_worker_of_a_loop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Found on any thread, but only while it runs; its signal handlers are its loop's."""

        class ASGIWorker:
            cfg = "its configuration"

            def run(self) -> list[object]:
                with ThreadPoolExecutor(1) as aside:
                    elsewhere = aside.submit(gunicorn.worker, "cfg").result()
                return [gunicorn.worker("cfg"), elsewhere, gunicorn.worker("cfg", "nr")]

        module = SimpleNamespace(ASGIWorker=ASGIWorker)
        monkeypatch.setitem(sys.modules, "gunicorn.workers.gasgi", module)
        worker = ASGIWorker()
        assert gunicorn.worker("cfg") is None
        assert worker.run() == [worker, worker, None]
        monkeypatch.setitem(sys.modules, "gunicorn.workers.gasgi", SimpleNamespace())
        assert worker.run() == [None, None, None]


class TestWaitress:
    """Channels."""

    @pytest.fixture
    def channel(self) -> Any:
        """One as waitress makes them."""
        adj = SimpleNamespace(channel_request_lookahead=0)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            yield _Channel(ours, adj)

    def test_is_found(self, channel: Any) -> None:
        """By the method in the environ."""
        environ = {waitress.KEY: channel.check_client_disconnected}
        assert waitress.channel_of(environ) is channel

    @pytest.mark.parametrize("name", ["adj", "request", "requests", "requests_lock", "socket"])
    def test_lacks_something(self, channel: Any, name: str) -> None:
        """Then the server is taken for an unknown one, and the client gets 501."""
        delattr(channel, name)
        assert waitress.channel_of({waitress.KEY: channel.check_client_disconnected}) is None

    def test_reads_ahead(self, channel: Any) -> None:
        """A version without the setting does not."""
        assert not waitress.reads_ahead(channel)
        channel.adj.channel_request_lookahead = 1
        assert waitress.reads_ahead(channel)
        del channel.adj.channel_request_lookahead
        assert not waitress.reads_ahead(channel)

    def test_head_of_next(self, channel: Any) -> None:
        """Taken away; where its bytes cannot be had it is an error that names them."""
        channel.request = SimpleNamespace(header_plus=b"early")
        assert not waitress.has_next(channel)
        assert waitress.take_head_of_next(channel) == b"early"
        assert waitress.take_head_of_next(channel) == b""
        channel.request = SimpleNamespace()
        with pytest.raises(AttributeError, match="header_plus"):
            waitress.take_head_of_next(channel)


class _Channel:
    def __init__(self, sock: socket.socket, adj: object) -> None:
        self.socket = sock
        self.adj = adj
        self.requests: list[object] = []
        self.requests_lock = threading.Lock()
        self.request: Any = None

    def check_client_disconnected(self) -> bool:
        return False


class TestGreenLibraries:
    """gevent and eventlet."""

    def test_hub_of_gevent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An error that names the version, and no hub for each thread that asks."""
        package, local = ModuleType("gevent"), ModuleType("gevent._hub_local")
        local.get_hub_if_exists = print  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "gevent", package)
        monkeypatch.setitem(sys.modules, "gevent._hub_local", local)
        assert gevent.hub_getter() is print
        del local.get_hub_if_exists  # type: ignore[attr-defined]
        with pytest.raises(MissingPart, match=rf"get_hub_if_exists, which gevent {VERSION}"):
            gevent.hub_getter()

    def test_hub_of_eventlet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As that of gevent."""
        hubs = _stand_in_for_eventlet(monkeypatch)
        current_hub = eventlet.hub_getter()
        assert current_hub() is None
        hubs._threadlocal.hub = "a hub"
        assert current_hub() == "a hub"
        del hubs._threadlocal
        with pytest.raises(MissingPart, match=rf"_threadlocal, which eventlet {VERSION}"):
            eventlet.hub_getter()

    def test_selector_of_eventlet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without it a thread of the system could not sleep."""
        patcher: Any = ModuleType("eventlet.patcher")
        # Threads that live on ask for it.
        patcher.is_monkey_patched = lambda _: False
        monkeypatch.setitem(sys.modules, "eventlet.patcher", patcher)
        with pytest.raises(MissingPart, match=r"patcher\.inject"):
            eventlet.system_selector()

    def test_greenlets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The answer needs no import."""
        for name in ("gevent", "eventlet"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        assert not gevent.is_in_greenlet()
        assert not eventlet.is_in_green_thread()
        assert not {"gevent", "eventlet"} & set(sys.modules)

    def test_readers(self) -> None:
        """gevent may give the reader itself; with eventlet's the early bytes would be lost."""
        body = SimpleNamespace(rfile="reader")
        assert gevent.reader_of(body) == eventlet.reader_of(body) == "reader"
        assert gevent.reader_of("reader") == "reader"
        with pytest.raises(MissingPart, match=r"Input\.rfile"):
            eventlet.reader_of(object())

    def test_protocol(self) -> None:
        """HTTP/1.1 where the handler cannot be found."""
        handler = SimpleNamespace(request_version="HTTP/1.0")

        def set_idle() -> object:
            return handler

        body = {eventlet.BODY: "body"}
        assert eventlet.protocol({}) is None
        assert eventlet.protocol({**body, "eventlet.set_idle": set_idle}) == "HTTP/1.0"
        del handler.request_version
        assert eventlet.protocol({**body, "eventlet.set_idle": set_idle}) == "HTTP/1.1"
        assert eventlet.protocol(body) == "HTTP/1.1"


VERSION = r"(\d+\.\d+|\(unknown)"


def _stand_in_for_eventlet(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a package with hubs in its place: importing it warns."""
    package, hubs = ModuleType("eventlet"), ModuleType("eventlet.hubs")
    hubs._threadlocal = threading.local()  # type: ignore[attr-defined]
    package.hubs = hubs  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "eventlet", package)
    monkeypatch.setitem(sys.modules, "eventlet.hubs", hubs)
    return hubs


class Data:
    """An event of hypercorn with bytes of the client."""

    def __init__(self, data: bytes) -> None:
        self.data = data


class WSStream:
    """A stream of hypercorn that notes the bytes which it gets."""

    closed = False

    def __init__(self) -> None:
        self.handshake = SimpleNamespace(accepted=False, http_version="1.1")
        self.handled = b""
        self.connection = SimpleNamespace(receive_data=self._note)

    async def handle(self, event: Data) -> None:
        """Refuse, in hypercorn, before the handshake is accepted."""
        self._note(event.data)

    async def _accept(self, message: object) -> None:
        self.handshake.accepted = True

    async def _handle_events(self) -> None:
        pass

    def _note(self, data: bytes) -> None:
        self.handled += data


class TestHypercorn:
    """Bytes behind a handshake where hypercorn reads on, as with TLS."""

    @pytest.fixture
    def stream(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """A stream that keeps them."""
        module = ModuleType("hypercorn.protocol.ws_stream")
        kind = type("WSStream", (WSStream,), {})
        module.WSStream = kind  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        hypercorn.keep_early_bytes()
        hypercorn.keep_early_bytes()
        return kind()

    def test_are_kept_until_it_accepts(self, stream: Any) -> None:
        """And then come first."""

        async def visit() -> None:
            await stream.handle(Data(b"one "))
            await stream.handle(Data(b"two "))
            assert stream.handled == b""
            await stream._accept({})
            await stream.handle(Data(b"three"))

        asyncio.run(visit())
        assert stream.handled == b"one two three"

    def test_are_limited(self, stream: Any) -> None:
        """A client that sends more is refused as ever."""

        async def visit() -> None:
            await stream.handle(Data(bytes(2**16)))
            await stream.handle(Data(b"more"))

        asyncio.run(visit())
        assert stream.handled == b"more"

    def test_other_versions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without these methods nothing is changed."""
        module = ModuleType("hypercorn.protocol.ws_stream")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        hypercorn.keep_early_bytes()
        module.WSStream = type("WSStream", (), {})  # type: ignore[attr-defined]
        hypercorn.keep_early_bytes()
        assert not hasattr(module.WSStream, "handle")


class TestOthers:
    """Werkzeug, cheroot, granian, Twisted and uWSGI."""

    def test_readers(self) -> None:
        """A layer that has nothing below is the lowest one."""
        assert werkzeug.reader_of(SimpleNamespace(_rfile="reader")) == "reader"
        assert werkzeug.reader_of("reader") == "reader"
        lowest = object()
        assert cheroot.reader_of(SimpleNamespace(rfile=SimpleNamespace(rfile=lowest))) is lowest

    def test_sender_of_granian(self) -> None:
        """By the class that it is a method of."""

        class ASGIWebsocketProtocol:
            def send(self) -> None:
                """Stands for granian's."""

        assert granian.is_sender(ASGIWebsocketProtocol().send)
        assert not granian.is_sender(print)
        assert not granian.is_sender(self.test_readers)

    def test_uwsgi_without_its_functions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Early bytes are lost; a request is still served."""
        monkeypatch.delitem(sys.modules, "gevent", raising=False)
        assert uwsgi.request_of_greenlet() is None
        assert uwsgi.request_of_thread() is None
        assert uwsgi.body_reader() is None

    def test_uwsgi_greenlet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The loop marks its greenlets."""
        library = ModuleType("gevent")
        library.getcurrent = lambda: SimpleNamespace(uwsgi_wsgi_req=7)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "gevent", library)
        assert uwsgi.request_of_greenlet() == 7
        library.getcurrent = lambda: object()  # type: ignore[attr-defined]
        assert uwsgi.request_of_greenlet() is None


def test_uvicorn_without_an_exception_for_clients_that_have_gone() -> None:
    """Before 0.27 there is none: ours is an OSError, too."""
    code = """
from uvicorn.protocols import utils

vars(utils).pop("ClientDisconnected", None)
from dwebsocket.compat import uvicorn

assert issubclass(uvicorn.parts().disconnected, OSError)
"""
    assert failures([code]) == {}

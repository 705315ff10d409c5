"""WSGI servers: which requests are theirs, and which of them they cannot serve."""

from __future__ import annotations

import io
import signal
import socket
import ssl
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dwebsocket.exceptions import UnsupportedServer
from dwebsocket.servers import find_client
from dwebsocket.servers.contract import Unsupported
from dwebsocket.servers.families import cheroot, gunicorn, uwsgi, waitress, werkzeug


def encrypted_socket() -> ssl.SSLSocket:
    """Make as much of one as has to be recognised."""
    return ssl.SSLSocket.__new__(ssl.SSLSocket)


class TestUwsgi:
    """Which requests can be served, by uWSGI's options."""

    @pytest.fixture
    def client(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Find the client under options."""

        def find(options: dict[str, Any], **environ: Any) -> Any:
            module = ModuleType("uwsgi")
            module.opt = options  # type: ignore[attr-defined]
            module.connection_fd = lambda: 7  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, "uwsgi", module)
            return uwsgi.find({"uwsgi.version": b"2.0.31", **environ})

        return find

    @pytest.mark.parametrize(
        ("options", "environ"),
        [
            ({"http-socket": b":1", "threads": b"2"}, {}),
            ({"http-socket": b":1", "threads": [b"1", b"4"]}, {}),
            ({"socket": b"x", "enable-threads": True}, {}),
            ({"socket": b"x", "enable-threads": b"true"}, {"HTTPS": "on"}),
            ({b"socket": b"x", b"enable-threads": b"1"}, {}),
            ({"http": b":1", "http-websockets": True, "threads": b"2"}, {"UWSGI_ROUTER": "http"}),
            ({"https": b":1", "http-raw-body": b"yes", "thread": b"2"}, {"UWSGI_ROUTER": "http"}),
            # The router is an instance of its own.
            ({"socket": b"x", "threads": b"2"}, {"UWSGI_ROUTER": "http"}),
            ({"socket": b"x", "fastcgi-socket": b"y", "threads": b"2"}, {}),
        ],
    )
    def test_serves(self, client: Any, options: dict[str, Any], environ: dict[str, str]) -> None:
        """Sockets that carry the client's own bytes, with threads."""
        found = client(options, **environ)
        assert (found.server, found.descriptor, found.concurrency) == ("uWSGI", 7, "thread")
        assert found.dies_of_sigterm is False

    @pytest.mark.parametrize(
        ("options", "environ", "remedy"),
        [
            ({"http-socket": b":1"}, {}, "--enable-threads"),
            ({"http-socket": b":1", "threads": b"1"}, {}, "--enable-threads"),
            ({"http-socket": b":1", "enable-threads": b"false"}, {}, "--enable-threads"),
            ({"http-socket": b":1", "threads": b"many"}, {}, "--enable-threads"),
            ({"http": b":1", "threads": b"2"}, {"UWSGI_ROUTER": "http"}, "--http-websockets"),
            (
                {"http": b":1", "threads": b"2", "http-websockets": b"off"},
                {"UWSGI_ROUTER": "http"},
                "--http-websockets",
            ),
            ({"fastcgi-socket": b":1", "threads": b"2"}, {}, "uwsgi_pass"),
            ({"https-socket": b":1", "threads": b"2"}, {"HTTPS": "on"}, "nginx"),
        ],
    )
    def test_refuses(
        self, client: Any, options: dict[str, Any], environ: dict[str, str], remedy: str
    ) -> None:
        """Each with the option to change."""
        with pytest.raises(Unsupported, match=remedy):
            client(options, **environ)

    def test_request_of_another_server(self, client: Any) -> None:
        """The module alone does not make it uWSGI's."""
        client({"threads": b"2"})
        assert uwsgi.find({}) is None

    def test_no_descriptor(self, client: Any) -> None:
        """Some plugins make up requests that have no client."""
        client({"threads": b"2"})
        sys.modules["uwsgi"].connection_fd = lambda: -1  # type: ignore[attr-defined]
        assert uwsgi.find({"uwsgi.version": b"2"}) is None

    def test_early_bytes_are_left_alone_with_one_thread(self, client: Any) -> None:
        """There is no telling where they are."""
        assert client({"enable-threads": True}, **{"wsgi.multithread": False}).read_early() == b""

    @pytest.mark.parametrize(
        ("options", "workers", "master", "expected"),
        [
            # By itself, SIGHUP, SIGINT, SIGTERM: code and timeout.
            ({}, 1, 1, [(True, 0), (True, 0), (False, 0), (True, 0)]),
            ({"die-on-term": True}, 1, 1, [(True, 0), (True, 0), (False, 0), (False, 0)]),
            ({}, 2, 1, [(True, 60), (True, 0), (False, 0), (True, 0)]),
            ({"master-fifo": b"f"}, 2, 1, [(True, 60), (True, 60), (False, 0), (True, 0)]),
            (
                {"touch-chain-reload": b"f", "worker-reload-mercy": b"9"},
                *(2, 1),
                [(True, 9), (True, 9), (False, 0), (True, 0)],
            ),
            ({"touch-chain-reload": b"f"}, 1, 1, [(True, 0), (True, 0), (False, 0), (True, 0)]),
            ({"touch-chain-reload": b"f"}, 2, 0, [(False, 0)] * 4),
        ],
    )
    def test_departures(
        self, client: Any, options: dict[str, Any], workers: int, master: int, expected: Any
    ) -> None:
        """Whether the site goes on shows in the signal; waiting is for those with others."""
        client({"threads": b"2", **options})
        module: Any = sys.modules["uwsgi"]
        module.masterpid, module.numproc = lambda: master, workers
        shutdown_plans = uwsgi.find({"uwsgi.version": b"2"}).at_exit.shutdown_plans
        numbers = (0, signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
        found = [shutdown_plans[number] for number in numbers]
        assert [(each.goes_on, each.timeout_s) for each in found] == expected

    def test_heirs(self, client: Any) -> None:
        """Only where workers end one after the other, and threads go on at the exit."""

        def heirs(workers: int, **options: Any) -> list[str | None]:
            client({"threads": b"2", **options})
            module: Any = sys.modules["uwsgi"]
            module.masterpid, module.numproc = lambda: 1, workers
            plans = uwsgi.find({"uwsgi.version": b"2"}).at_exit.shutdown_plans
            return [plans[number].heirs for number in (0, signal.SIGHUP, signal.SIGTERM)]

        assert heirs(1) == [None, None, None]
        assert heirs(2) == ["soon", None, None]
        assert heirs(2, **{"master-fifo": b"f"}) == ["soon", "there", None]

    def test_host(self, client: Any) -> None:
        """A worker that has threads; a master calls what a worker begins with."""
        said: list[str] = []
        client({"enable-threads": True})
        module: Any = sys.modules["uwsgi"]
        module.masterpid = lambda: 7
        assert uwsgi.host() is None
        module.worker_id = lambda: 0
        assert uwsgi.host() is None
        module.post_fork_hook = lambda: said.append("project")
        uwsgi.call_in_workers(lambda: said.append("dwebsocket"))
        module.post_fork_hook()
        assert said == ["dwebsocket", "project"]
        module.worker_id = lambda: 2
        found = uwsgi.host()
        assert found is not None
        assert (found[0], found[1].server, found[1].at_exit is None) == (7, "uWSGI", False)
        module.opt = {}
        assert uwsgi.host() is None

    def test_hook_of_the_project_runs_behind_ours(self, client: Any) -> None:
        """`uwsgi.atexit` may be taken already."""
        found = client({"threads": b"2"})
        said: list[str] = []
        sys.modules["uwsgi"].atexit = lambda: said.append("project")  # type: ignore[attr-defined]
        found.at_exit.register(lambda: said.append("dwebsocket"))
        sys.modules["uwsgi"].atexit()
        assert said == ["dwebsocket", "project"]


class TestGunicorn:
    """HTTP/2, and the response on the placeholder."""

    def test_placeholder_is_not_written_to_nor_kept_alive(self) -> None:
        """The response is marked, where an object leads to it."""
        said: list[str] = []
        response = SimpleNamespace(headers_sent=False, force_close=lambda: said.append("close"))
        body = SimpleNamespace(buf=io.BytesIO(), reader=SimpleNamespace(parser=None))

        def early_hints(headers: Any) -> None:
            assert response, headers

        ours, theirs = socket.socketpair()
        with ours, theirs:
            environ: dict[str, Any] = {"gunicorn.socket": ours, "wsgi.input": body}
            for hints in ({}, {"wsgi.early_hints": print}, {"wsgi.early_hints": early_hints}):
                assert said == []
                client = gunicorn.find(environ | hints)
                assert client is not None
                client.let_go()
        assert said == ["close"]
        assert response.headers_sent

    @pytest.mark.parametrize(
        "marks",
        [
            {"SERVER_PROTOCOL": "HTTP/2"},
            {"gunicorn.http2.priority_weight": 16},
            {"gunicorn.http2.send_trailers": print},
        ],
        ids=["protocol", "priority", "trailers"],
    )
    def test_streams_are_refused(self, marks: dict[str, Any]) -> None:
        """One socket carries many of them."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            environ = {"gunicorn.socket": ours, "SERVER_PROTOCOL": "HTTP/1.1", **marks}
            with pytest.raises(Unsupported, match="one of many HTTP/2 streams"):
                gunicorn.find(environ)
            with pytest.raises(UnsupportedServer, match="--http-protocols h1"):
                find_client(environ)


class TestWaitress:
    """Which requests can be served, by the state of waitress's channel."""

    @staticmethod
    def environ(**changes: Any) -> dict[str, Any]:
        """Make an environ of waitress."""

        class Channel:
            adj = SimpleNamespace(channel_request_lookahead=0)
            requests_lock = threading.Lock()
            requests = ("this",)
            request: Any = None
            socket = socket.socket()

            def check_client_disconnected(self) -> bool:
                """Be what the environ holds."""
                return False

        channel = Channel()
        channel.__dict__.update(changes)
        return {"waitress.client_disconnected": channel.check_client_disconnected}

    def test_early_bytes_are_the_head_of_the_next_request(self) -> None:
        """They are taken away, so that waitress does not answer them."""
        environ = self.environ(request=SimpleNamespace(header_plus=b"\x81\x80"))
        channel = environ["waitress.client_disconnected"].__self__
        found = waitress.find(environ)
        assert found is not None
        assert found.read_early() == b"\x81\x80"
        assert channel.request is None
        assert found.read_early() == b""
        found.let_go()
        assert environ == {}
        channel.socket.close()

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"adj": SimpleNamespace(channel_request_lookahead=1)}, "set it to 0"),
            ({"requests": ("this", "that")}, "RFC 6455"),
        ],
    )
    def test_refuses(self, changes: dict[str, Any], reason: str) -> None:
        """Options and channels that may have taken the client's first messages."""
        environ = self.environ(**changes)
        with pytest.raises(Unsupported, match=reason):
            waitress.find(environ)
        environ["waitress.client_disconnected"].__self__.socket.close()

    @pytest.mark.parametrize("environ", [{}, {"waitress.client_disconnected": len}])
    def test_request_of_another_server(self, environ: dict[str, Any]) -> None:
        """Nothing to find."""
        assert waitress.find(environ) is None


class TestEncrypted:
    """Connections whose state is in the server's process."""

    def test_werkzeug(self) -> None:
        """`--cert`: the socket itself is handed on."""
        sock = encrypted_socket()
        sock._sslobj = object()
        body = io.BufferedReader(io.BytesIO())
        client = werkzeug.find({"werkzeug.socket": sock, "wsgi.input": body})
        assert client is not None
        assert client.tls is sock

    def test_cheroot_with_another_library(self) -> None:
        """Only what Python's own `ssl` encrypts can be taken over."""
        layers = type("Body", (), {"__module__": "cheroot.server", "rfile": None})
        body = layers()
        body.rfile = SimpleNamespace(raw=SimpleNamespace(_sock=object()))
        with pytest.raises(Unsupported, match="BuiltinSSLAdapter"):
            cheroot.find({"wsgi.input": body, "wsgi.url_scheme": "https"})


@pytest.mark.parametrize("family", [uwsgi, werkzeug, cheroot, waitress])
def test_request_of_nobody(family: ModuleType) -> None:
    """An environ without marks belongs to none of them."""
    assert family.find({"wsgi.input": None}) is None

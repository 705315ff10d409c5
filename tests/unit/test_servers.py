"""Finding each server's connection, and the error where there is none to take over."""

from __future__ import annotations

import io
import socket
import ssl
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.core.handlers.wsgi import LimitedStream, WSGIRequest
from django.test import RequestFactory
from visit import body

from dwebsocket import require_websocket
from dwebsocket.exceptions import UnsupportedServer
from dwebsocket.servers import _CLOSED, find_client

if TYPE_CHECKING:
    from collections.abc import Iterator

ALTERNATIVES = "Use gunicorn, uWSGI, waitress or Django's runserver instead."


@pytest.fixture(autouse=True)
def _nobody_loaded_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are known by the modules that they load: another test may have imported one."""
    for module in _CLOSED:
        monkeypatch.delitem(sys.modules, module, raising=False)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's and the server's end."""
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def server(pair: tuple[socket.socket, socket.socket]) -> socket.socket:
    """The server's end."""
    return pair[1]


def environ(**items: Any) -> dict[str, Any]:
    """Make an environ."""
    return {"REQUEST_METHOD": "GET", "wsgi.input": io.BytesIO(), **items}


class TestGunicorn:
    """Its socket is in the environ."""

    def test_found(self, server: socket.socket) -> None:
        """With everything that is needed to take it over."""
        given = environ(**{"gunicorn.socket": server, "wsgi.input": body(b"ear", b"ly")})
        client = find_client(given)
        assert (client.server, client.descriptor) == ("gunicorn", server.fileno())
        assert client.read_early() == b"early"
        assert "gunicorn.socket" in given
        client.let_go()
        client.let_go()
        assert "gunicorn.socket" not in given

    def test_what_errors_are_written_to(self, server: socket.socket) -> None:
        """All connections share one object for the same streams; other objects are left alone."""

        def kept(errors: object) -> Any:
            given = environ(
                **{"gunicorn.socket": server, "wsgi.input": body(), "wsgi.errors": errors}
            )
            find_client(given).let_go()
            return given["wsgi.errors"]

        before, after = io.StringIO(), io.StringIO()
        first = kept(SimpleNamespace(streams=[before]))
        assert kept(SimpleNamespace(streams=[before])) is first
        second = kept(SimpleNamespace(streams=[after]))
        assert second.streams == [after]
        assert kept(SimpleNamespace(streams=[after])) is second
        assert kept(before) is before
        assert kept(after) is after

    def test_body_without_a_parser_below(self, server: socket.socket) -> None:
        """A body in chunks has none."""
        stream = body(b"early")
        stream.reader = SimpleNamespace(parser=None)
        client = find_client(environ(**{"gunicorn.socket": server, "wsgi.input": stream}))
        assert client.read_early() == b"early"

    def test_tls(self, pair: tuple[socket.socket, socket.socket]) -> None:
        """The socket itself is handed on: its descriptor alone is of no use."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        wrapped = context.wrap_socket(pair[1], server_side=True, do_handshake_on_connect=False)
        client = find_client(environ(**{"gunicorn.socket": wrapped, "wsgi.input": body()}))
        assert client.tls is wrapped
        wrapped.close()

    @pytest.mark.parametrize("library", ["gevent._socket3", "eventlet.greenio.base"])
    def test_greenlets(self, library: str) -> None:
        """The kind of threads shows in the class of the socket."""
        green = type("socket", (), {"__module__": library, "fileno": lambda self: 7})()
        client = find_client(environ(**{"gunicorn.socket": green, "wsgi.input": body()}))
        assert client.concurrency == library.partition(".")[0]

    def test_body_that_is_wrapped(self, server: socket.socket) -> None:
        """Found out before the connection is taken, or early bytes would be lost."""
        stream = io.BufferedReader(io.BytesIO())  # type: ignore[arg-type]
        with pytest.raises(UnsupportedServer, match=r"BufferedReader.*WSGI middleware"):
            find_client(environ(**{"gunicorn.socket": server, "wsgi.input": stream}))


class TestRunserver:
    """The socket is below the reader of the body."""

    def given(self, stream: Any) -> dict[str, Any]:
        """Make an environ of the standard library's server."""
        return environ(**{"SERVER_SOFTWARE": "WSGIServer/0.2", "wsgi.input": stream})

    def test_found_in_a_limited_stream(
        self, pair: tuple[socket.socket, socket.socket], server: socket.socket
    ) -> None:
        """As Django wraps it."""
        reader = server.makefile("rb")
        pair[0].sendall(b"early")
        reader.peek(1)
        client = find_client(self.given(LimitedStream(reader, 0)))
        assert (client.server, client.descriptor) == ("runserver", server.fileno())
        pair[0].close()
        assert client.read_early() == b"early"
        client.let_go()
        reader.close()

    def test_found_bare(self, server: socket.socket) -> None:
        """As the library gives it."""
        reader = server.makefile("rb")
        assert find_client(self.given(reader)).descriptor == server.fileno()
        reader.close()

    def test_not_found(self) -> None:
        """Another reader has no socket."""
        for stream in (io.BytesIO(), io.BufferedReader(io.BytesIO()), None):  # type: ignore[arg-type]
            with pytest.raises(UnsupportedServer, match=r"WSGIServer/0\.2 does not give"):
                find_client(self.given(stream))

    def test_other_software_is_left_alone(self, server: socket.socket) -> None:
        """A reader with a socket is not enough."""
        reader = server.makefile("rb")
        with pytest.raises(UnsupportedServer, match=r"Other/1\.0 does not give"):
            find_client(environ(**{"SERVER_SOFTWARE": "Other/1.0", "wsgi.input": reader}))
        reader.close()


class TestOthers:
    """A message that names the server and what to use instead."""

    @pytest.mark.parametrize(
        ("modules", "software", "name"),
        [
            ([], "granian/2.8", "granian/2.8"),
            (["granian"], "", "granian"),
            (["granian"], "Granian", "Granian"),
            (["bjoern"], "", "bjoern"),
            (["mod_wsgi"], "Apache/2.4", "mod_wsgi (Apache/2.4)"),
            ([], "", "this server"),
        ],
    )
    def test_by_name(
        self, monkeypatch: pytest.MonkeyPatch, modules: list[str], software: str, name: str
    ) -> None:
        """From the environ, or from the module that such a server loads."""
        for module in modules:
            monkeypatch.setitem(sys.modules, module, ModuleType(module))
        with pytest.raises(UnsupportedServer) as caught:
            find_client(environ(SERVER_SOFTWARE=software))
        assert str(caught.value) == (
            f"No WebSocket on this server: {name} does not give its clients' connections to the "
            f"application. {ALTERNATIVES}"
        )

    def test_asgi(self) -> None:
        """A request of an ASGI server has no body of WSGI."""
        with pytest.raises(UnsupportedServer, match=r"this server: an ASGI server does not give"):
            find_client({"REQUEST_METHOD": "GET"})

    def test_request_of_the_test_client(self) -> None:
        """Django's own test client has no connection at all."""
        request = RequestFactory().get("/")
        assert isinstance(request, WSGIRequest)
        with pytest.raises(UnsupportedServer, match=r"the one of dwebsocket\.testing"):
            find_client(request.environ)

    @pytest.mark.parametrize("host", [{}, {"Host": "testserver"}], ids=["usual", "with a host"])
    def test_handshake_of_the_test_client(
        self, caplog: pytest.LogCaptureFixture, host: dict[str, str]
    ) -> None:
        """It sends no Host; that it has no connection is what its user has to know."""

        @require_websocket
        def view(_: Any) -> None:
            raise AssertionError

        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version": "13",
        }
        given = {f"HTTP_{k.upper().replace('-', '_')}": v for k, v in {**headers, **host}.items()}
        request: Any = RequestFactory().get("/", **given)
        assert view(request).status_code == 501
        assert "use the one of dwebsocket.testing" in caplog.text

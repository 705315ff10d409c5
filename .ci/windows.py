"""
The checks for Windows, where no connection is taken over from a server.

    python .ci/windows.py                 on Windows: builds the wheel, installs it, checks all
    python .ci/windows.py CHECK …         with the package that is installed
    python .ci/windows.py --feign CHECK … on Linux or macOS, without what only Unix has
    python .ci/windows.py --feign pytest …  the tests of a project, likewise
"""

from __future__ import annotations

# Some of these are only loaded before a Windows is feigned: they choose by the system.
import asyncio
import contextlib
import functools
import http.client
import importlib.abc
import importlib.machinery
import importlib.util
import json
import multiprocessing  # noqa: F401
import os
import select
import signal
import socket
import ssl  # noqa: F401
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterator

    from dwebsocket import WebSocketRequest

ROOT = Path(__file__).resolve().parent.parent
SENTENCE = "dwebsocket takes connections over from servers on Linux and macOS"
ADVICE = "WSL 2 or a container"
FEIGN = "--feign"
HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


# Libraries of servers, databases and tests that a project may not have, or that Windows has not.
OPTIONAL = {
    *("channels", "cheroot", "daphne", "eventlet", "gevent", "granian", "gunicorn", "hypercorn"),
    *("msgpack", "opentelemetry", "prometheus_client", "prompt_toolkit", "psycopg", "psycopg2"),
    *("pytest", "redis", "rest_framework", "rich", "uvicorn", "uwsgi", "uwsgidecorators"),
    *("waitress", "werkzeug"),
}

# Parts of uvicorn and websockets that choose by the system, too.
LOADED = (
    *("uvicorn.lifespan.on", "uvicorn.protocols.http.auto", "uvicorn.protocols.websockets.auto"),
    "websockets.asyncio.client",
)


# Of the native module, on Windows.
ABSENT = (
    *("LocalNode", "after_fork_in_child", "die_of_sigterm", "discard", "is_default"),
    *("is_terminated", "on_exit", "on_terminate", "signal_seen"),
)


class Native(importlib.machinery.ExtensionFileLoader):
    """Loads the native module without what Windows has not."""

    def exec_module(self, module: types.ModuleType) -> None:
        """Run it, and take names away."""
        super().exec_module(module)
        for name in ABSENT:
            delattr(module, name)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the native module."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        """Find that one module."""
        if name != "dwebsocket._core":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)  # type: ignore[arg-type]
        assert spec is not None and spec.origin is not None
        loader = Native(name, spec.origin)
        return importlib.util.spec_from_file_location(name, spec.origin, loader=loader)


def feign() -> None:
    """Takes away what Windows does not have. The standard library's own use was decided before."""
    import django.core.servers.basehttp
    import django.db.backends.sqlite3.base
    import django.utils.autoreload  # noqa: F401

    for library in (*OPTIONAL, *LOADED):
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    # The loop that Python uses on Windows watches no descriptors.
    asyncio.SelectorEventLoop.add_reader = asyncio.AbstractEventLoop.add_reader  # type: ignore[method-assign]
    asyncio.SelectorEventLoop.add_writer = asyncio.AbstractEventLoop.add_writer  # type: ignore[method-assign]
    # On Windows it makes a pair of TCP sockets.
    socket.socketpair = functools.partial(socket.socketpair, socket.AF_UNIX)  # type: ignore[assignment]
    sys.meta_path.insert(0, Finder())
    for module in ("fcntl", "resource", "pwd", "grp", "termios"):
        sys.modules[module] = None  # type: ignore[assignment]
    absent = {
        os: ("fork", "register_at_fork", "geteuid", "getuid", "getgid", "sysconf", "sched_yield"),
        socket: ("AF_UNIX",),
        select: ("epoll", "poll", "POLLIN", "POLLOUT", "POLLHUP", "POLLERR"),
        signal: ("SIGHUP", "SIGUSR1", "SIGQUIT", "pthread_sigmask", "siginterrupt"),
    }
    for module, names in absent.items():
        for name in names:
            vars(module).pop(name, None)
    sys.platform = "win32"


@functools.cache
def set_up() -> None:
    """Makes this process one of a small project, which this file is: settings, URLs, views."""
    import django
    from django.conf import settings

    settings.configure(
        DEBUG=True,
        SECRET_KEY="only for this check",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=[
            *(f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "messages")),
            "django.contrib.sessions",
            "dwebsocket",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "dwebsocket.middleware.WebSocketMiddleware",
        ],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    )
    django.setup()
    globals()["urlpatterns"] = url_patterns()


def url_patterns() -> list[object]:
    """The project's views."""
    from django.http import HttpResponse
    from django.urls import path

    from dwebsocket import accept_websocket, group

    ended: list[str] = []

    @accept_websocket(subprotocols=["chat.v2", "chat.v1"])
    def both(request: WebSocketRequest) -> HttpResponse | None:
        if not request.is_websocket():
            return HttpResponse("a page")
        for message in request.websocket.messages():
            request.websocket.send(message)
        ended.append("both")
        return None

    @accept_websocket(groups="room")
    def chat(request: WebSocketRequest) -> None:
        websocket = request.websocket
        for message in websocket.messages():
            if message == "who":
                websocket.send_json({"user": request.user.username, "here": group("room").count()})
            elif message == "enough":
                websocket.close(4000, "enough")
            elif message == "leave":
                websocket.leave("room")
            elif message == "others":
                group("room").send("not for you", exclude=websocket)
            elif message == "end":
                group("room").close(4001, "all")
            else:
                group("room").send(message)
        ended.append("chat")

    @accept_websocket(fallback=True)
    async def achat(request: WebSocketRequest) -> None:
        websocket = request.websocket
        await websocket.ajoin("room")
        async for message in websocket:
            if message == "enough":
                await websocket.aclose(4000, "enough")
            elif message == "fail":
                raise ValueError("as it was asked for")
            else:
                await group("room").asend(message)
        ended.append("achat")

    @accept_websocket(accept=False)
    def choosy(request: WebSocketRequest) -> HttpResponse | None:
        if "name" not in request.GET:
            return HttpResponse("no name", status=402)
        request.websocket.accept()
        request.websocket.send(request.GET["name"])
        return None

    def log(request: object) -> HttpResponse:
        return HttpResponse(",".join(ended))

    return [
        path("", both),
        path("chat/", chat),
        path("achat/", achat),
        path("choosy/", choosy),
        path("log/", log),
    ]


def imports() -> None:
    """Each module can be imported, but those for servers and libraries that are not installed."""
    import dwebsocket

    set_up()
    folder = Path(dwebsocket.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        try:
            importlib.import_module(name)
        except ImportError as error:
            assert error.name and not error.name.startswith("dwebsocket"), (name, error)
            assert error.name.partition(".")[0] in OPTIONAL, (name, error)
    assert (folder / "static/dwebsocket/dwebsocket.js").exists()


def decorators() -> None:
    """Views are decorated, and exceptions raised, as everywhere."""
    from dwebsocket import (
        ConnectionFailed,
        UnsupportedServer,
        WebSocketError,
        accept_websocket,
        connect,
        require_websocket,
    )

    assert accept_websocket(lambda request: None).accept_websocket
    assert require_websocket(lambda request: None).require_websocket
    assert issubclass(UnsupportedServer, WebSocketError)
    try:
        with connect("ws://127.0.0.1:1/"):
            raise AssertionError("there is no server")
    except ConnectionFailed:
        pass


def settings() -> None:
    """Settings are read and checked; Django's checks tell what WebSockets need here."""
    set_up()
    from django.core import checks

    from dwebsocket import conf

    assert conf.get("PING_INTERVAL") > 0
    found = {message.id: message for message in checks.run_checks()}
    assert SENTENCE in str(found["dwebsocket.W005"].hint), found
    assert ADVICE in str(found["dwebsocket.W005"].hint), found


def groups() -> None:
    """Groups of this process have members, a history and presence."""
    set_up()
    from django.test import override_settings

    from dwebsocket import group, group_statistics

    kept = {"HISTORY": {"*": {"size": 9, "seconds": 9}}, "PRESENCE": {"*": {}}}
    with override_settings(WEBSOCKET_GROUPS={"default": kept}):
        group("room").send("hello")
        assert [entry.message for entry in group("room").history()] == ["hello"]
        assert group("room").count() == 0
        assert group("room").members() == []
        group("room").close()
        assert group_statistics()["default"]["published"] == 1


def doctor() -> None:
    """The doctor says what it finds, and asks a server that is not there."""
    set_up()
    import io

    from django.core.management import CommandError, call_command

    text = io.StringIO()
    call_command("websocket_doctor", stdout=text)
    assert "WebSockets on this system need an ASGI server." in text.getvalue(), text.getvalue()
    text = io.StringIO()
    with contextlib.suppress(CommandError, SystemExit):
        call_command("websocket_doctor", url="ws://127.0.0.1:9/", stdout=text)
    assert "127.0.0.1:9" in text.getvalue(), text.getvalue()


def commands() -> None:
    """Commands that ask a server, or other processes, say in a sentence that there is none."""
    set_up()
    import io

    from django.core.management import CommandError, call_command

    url = "ws://127.0.0.1:9/"
    for arguments, message in [
        (("websocket_client", url), "127.0.0.1 port 9"),
        (("websocket_load", url), "no client could connect"),
        (("websocket_stats",), "this command would see itself only"),
    ]:
        try:
            call_command(*arguments, stdout=io.StringIO())
        except CommandError as error:
            assert message in str(error), error
        else:
            raise AssertionError(arguments)


def kit() -> None:
    """The test kit's client asks for pages, and opens WebSockets, in sync and in async tests."""
    set_up()
    from django.contrib.auth.models import User
    from django.core.management import call_command

    from dwebsocket import ConnectionClosed, statistics
    from dwebsocket.testing import (
        AsyncWebSocketClient,
        WebSocketClient,
        WebSocketRefused,
        websockets_of_a_test,
    )

    client = WebSocketClient()
    assert client.get("/").content == b"a page"
    with websockets_of_a_test():
        with client.websocket("/", subprotocols=["chat.v1"]) as ws:
            assert (ws.response.status_code, ws.subprotocol) == (101, "chat.v1")
            for message in ("hello", b"\xff"):
                ws.send(message)
                assert ws.receive() == message
        assert (ws.close_code, ws.close_reason) == (1000, "")
        for path in ("/chat/", "/achat/"):
            with client.websocket(path) as one, client.websocket("/chat/") as two:
                one.send("hello")
                assert one.receive() == two.receive() == "hello"
                two.send("who")
                assert two.receive_json() == {"user": "", "here": 2}
                one.send("enough")
                assert (one.wait_closed(), one.close_reason) == (4000, "enough")
                try:
                    one.receive()
                except ConnectionClosed as closed:
                    assert (closed.code, closed.by) == (4000, "peer"), closed
                two.vanish()
        for options, status in [
            ({"headers": {"origin": "https://elsewhere.example"}}, 403),
            ({"headers": {"sec-websocket-version": "8"}}, 426),
        ]:
            with client.websocket("/chat/", **options) as ws:
                assert ws.refused and ws.response.status_code == status, ws
                try:
                    ws.receive()
                except WebSocketRefused as error:
                    assert str(status) in str(error), error
        with client.websocket("/choosy/?name=me") as ws:
            assert (ws.receive(), ws.wait_closed()) == ("me", 1000)
        with client.websocket("/choosy/") as ws:
            assert ws.response.content == b"no name"
        try:
            with client.websocket("/achat/") as ws:
                ws.send("fail")
                assert ws.wait_closed() == 1011
        except ValueError as error:
            assert str(error) == "as it was asked for", error
        call_command("migrate", verbosity=0)
        client.force_login(User.objects.create_user("ada"))
        with client.websocket("/chat/") as ws:
            ws.send("who")
            assert ws.receive_json() == {"user": "ada", "here": 1}
            found = statistics()
            assert (found["open"]["total"], found["open"]["signed_in"]) == (1, 1), found
            assert found["messages"]["in"] > 0 and found["bytes"]["out"] > 0, found
        with client.websocket("/chat/", answer_pings=False, compression=True) as ws:
            assert "permessage-deflate" in ws.headers["sec-websocket-extensions"]
            ws.send("hello" * 100)
            assert ws.receive() == "hello" * 100
            ws.send_frame(0x9, b"?")
            ws.send_frame(0x3, b"")
            assert (ws.wait_closed(), ws.pings_received) == (1002, 0)

    async def in_loop() -> None:
        client = AsyncWebSocketClient()
        async with client.websocket("/achat/") as one, client.websocket("/chat/") as two:
            await one.send("hello")
            assert await one.receive() == await two.receive() == "hello"
            await two.send("enough")
            assert await two.wait_closed() == 4000
        assert one.close_code == 1000
        async with client.websocket("/chat/", headers={"origin": "null"}) as ws:
            assert ws.response.status_code == 403

    with websockets_of_a_test():
        asyncio.run(in_loop())


def pages() -> None:
    """`runserver` serves pages, and answers handshakes and event streams with 501."""
    with served("serve") as port:
        assert ask(port, "/") == (200, "a page")
        for path, headers in [
            ("/", HANDSHAKE),
            ("/achat/", HANDSHAKE),
            ("/achat/?transport=sse", EVENTS),
        ]:
            status, text = ask(port, path, headers)
            assert status == 501, (path, status, text[:500])
            assert SENTENCE in text and ADVICE in text, text[:500]
            assert "transport" in path or "such as uvicorn" in text, text[:500]
        assert ask(port, "/") == (200, "a page")


EVENTS = {"Accept": "text/event-stream"}


@contextlib.contextmanager
def served(by: str) -> Iterator[int]:
    """Has another process serve the project; gives its port."""
    # Another program may take the port before the server does.
    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        server = subprocess.Popen([sys.executable, __file__, *flags(), by, str(port)])
        if listens(server, port):
            break
    try:
        assert server.poll() is None, "the server has ended"
        yield port
    finally:
        server.terminate()
        server.wait()


def listens(server: subprocess.Popen[bytes], port: int) -> bool:
    """Waits until the server listens; False when it ends before."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if server.poll() is not None:
            return False
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return server.poll() is None
        time.sleep(0.1)
    server.kill()
    raise AssertionError("the server does not start")


def ask(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Asks the server; gives the status and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()


def serve() -> None:
    """`manage.py runserver`, until it is ended."""
    set_up()
    from django.core.management import call_command

    call_command("runserver", f"127.0.0.1:{sys.argv[-1]}", "--noreload", "--skip-checks")


def serve_uvicorn() -> None:
    """uvicorn, until it is ended; on the event loop that Python uses here."""
    import uvicorn

    set_up()
    from dwebsocket.asgi import get_asgi_application

    config = uvicorn.Config(
        get_asgi_application(), host="127.0.0.1", port=int(sys.argv[-1]), log_level="warning"
    )
    asyncio.run(uvicorn.Server(config).serve())


def asgi() -> None:
    """Under an ASGI server views have their WebSockets, by the server's own protocol."""
    with served("uvicorn") as port:
        assert ask(port, "/") == (200, "a page")
        asyncio.run(talk(port))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", "/achat/?transport=sse", headers=EVENTS)
            response = connection.getresponse()
            kind = response.headers.get_content_type()
            assert (response.status, kind) == (200, "text/event-stream")
            assert response.readline(), "no event came"
    asyncio.run(make_protocol())


async def make_protocol() -> None:
    """The engine's protocol for uvicorn is uvicorn's own here."""
    import uvicorn
    from uvicorn.server import ServerState

    set_up()
    from dwebsocket.asgi import get_asgi_application

    config = uvicorn.Config(get_asgi_application(), ws="dwebsocket.uvicorn:WebSocketProtocol")
    config.load()
    made = config.ws_protocol_class(config=config, server_state=ServerState(), app_state={})
    assert type(made).__module__.startswith("uvicorn."), made


async def talk(port: int) -> None:
    """Uses the views of a server."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    def open(path: str, **options: object) -> connect:
        return connect(f"ws://127.0.0.1:{port}{path}", proxy=None, **options)

    async def end_of(client: object) -> tuple[int, str]:
        try:
            raise AssertionError(await asyncio.wait_for(client.recv(), 60))
        except ConnectionClosed as closed:
            return closed.rcvd.code, closed.rcvd.reason

    async def refusal_of(path: str, **options: object) -> int:
        try:
            async with open(path, **options):
                raise AssertionError("it is open")
        except InvalidStatus as error:
            return error.response.status_code

    async with open("/", subprotocols=["chat.v1", "other"]) as client:
        assert client.subprotocol == "chat.v1"
        for message in ("hello", "\N{SNOWMAN}" * 50_000, b"\xff\0"):
            await client.send(message)
            assert await client.recv() == message
        # More than waits in one buffer.
        for number in range(2000):
            await client.send(str(number))
        assert [await client.recv() for _ in range(2000)] == [str(n) for n in range(2000)]
    async with open("/chat/") as one, open("/achat/") as two, open("/chat/") as three:
        # `achat` joins by itself: it is a member as soon as it has what it says.
        await two.send("hello")
        assert await two.recv() == "hello"
        await one.recv(), await three.recv()
        await one.send("who")
        found = json.loads(await one.recv())
        assert found == {"user": "", "here": 3}
        await one.send("others")
        assert [await two.recv(), await three.recv()] == ["not for you"] * 2
        await one.send("to all")
        assert [await each.recv() for each in (one, two, three)] == ["to all"] * 3
        await two.send("enough")
        assert await end_of(two) == (4000, "enough")
        await three.send("leave")
        await three.send("end")
        assert await end_of(one) == (4001, "all")
        await three.send("enough")
        assert await end_of(three) == (4000, "enough")
    async with open("/achat/") as client:
        await client.send("fail")
        assert (await end_of(client))[0] == 1011
    async with open("/choosy/?name=me") as client:
        assert await client.recv() == "me"
        assert await end_of(client) == (1000, "")
    assert await refusal_of("/choosy/") == 402
    assert await refusal_of("/chat/", origin="https://elsewhere.example") == 403
    async with open("/chat/", origin=f"http://127.0.0.1:{port}") as client:
        client.transport.abort()
    # The views of clients that have gone have ended, too.
    expected = ["both", "achat", "chat", "chat", "chat"]
    end = time.monotonic() + 60
    while (found := ask(port, "/log/")[1].split(",")) and sorted(found) != sorted(expected):
        assert time.monotonic() < end, found
        await asyncio.sleep(0.05)


CHECKS: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (imports, decorators, settings, groups, doctor, commands, kit, pages, asgi)
}


SERVERS: dict[str, Callable[[], None]] = {"serve": serve, "uvicorn": serve_uvicorn}


def flags() -> list[str]:
    """The flags for another process like this one."""
    return [FEIGN] if FEIGN in sys.argv else []


def build_and_check() -> None:
    """Installs the wheel into an environment of its own, and runs each check there."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        venv.create(folder / "tools", with_pip=True)
        venv.create(folder / "project", with_pip=True)
        tools, project = (
            folder / name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
            for name in ("tools", "project")
        )
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        wheel_here = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
        subprocess.run([tools, *wheel_here, folder / "wheels", ROOT], check=True)
        wheel = next((folder / "wheels").glob("*.whl"))
        subprocess.run([project, *pip, wheel, "uvicorn", "websockets"], check=True)
        for name in CHECKS:
            subprocess.run([project, __file__, name], check=True, cwd=folder)


if __name__ == "__main__":
    names = [name for name in sys.argv[1:] if name != FEIGN]
    if FEIGN in sys.argv:
        feign()
    if not names:
        build_and_check()
    elif names[0] in SERVERS:
        SERVERS[names[0]]()
    elif names[0] == "pytest":
        import pytest

        sys.path.insert(0, os.getcwd())
        sys.exit(pytest.main(names[1:]))
    else:
        for name in names:
            CHECKS[name]()
            print(f"{name}: ok")

"""
A site with Sentry in one process, by docs/operations.md: what Sentry gets when connections fail.

Prints that as JSON, by the kind of server and the connection.
"""

import asyncio
import contextvars
import json
import os
import sys
import threading
import traceback

import django
import sentry_sdk
from django.core.asgi import get_asgi_application
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from sentry_settings import PAGE, events, news
from visit import Visit, handshake

from dwebsocket import (
    WebSocketHandler,
    accept_websocket,
    asgi_websocket,
    group,
    require_websocket,
    runners,
    signals,
)
from dwebsocket.api import close_callbacks
from dwebsocket.compat import unpatched
from dwebsocket.rooms import Room, rooms
from dwebsocket.runners import loop
from support.pages import run

os.environ["DJANGO_SETTINGS_MODULE"] = "sentry_settings"
django.setup()
# A record before the first request must not make one scope for all requests.
sentry_sdk.add_breadcrumb(message="begins")
EVENT_STREAM = "transport=sse"
ADDRESS = "203.0.113.9"


class Person:
    """A user without a database."""

    pk, email, is_authenticated, is_active = 7, "", True, True

    def get_username(self):
        """Give the name."""
        return "anna"


def anna(get_response):
    """Middleware: sign Anna in."""

    def middleware(request):
        request.user = Person()
        return get_response(request)

    return middleware


def fail(*args, **kwargs):
    """Fail on purpose."""
    raise RuntimeError("on purpose")


async def afail(*args, **kwargs):
    """As `fail`."""
    fail()


@require_websocket
def sync_view(request):
    request.websocket.receive()
    fail()


@require_websocket
async def async_view(request):
    await request.websocket.areceive()
    fail()


@method_decorator(require_websocket, name="get")
class ClassView(View):
    """A class-based view."""

    def get(self, request):
        """Fail at a message."""
        sync_view.__wrapped__(request)


@accept_websocket(accept=False)
def accepts(request):
    request.websocket.accept()
    fail()


@require_websocket
def on_close(request):
    request.websocket.on_close(fail)
    request.websocket.receive()


@require_websocket
async def aon_close(request):
    request.websocket.on_close(afail)
    await request.websocket.areceive()


@require_websocket
def every(request):
    request.websocket.every(0.01, fail)
    request.websocket.receive()
    request.websocket.receive()


@require_websocket
def serves(request):
    """Answer until the end."""
    while True:
        request.websocket.send(request.websocket.receive())


@require_websocket
async def aserves(request):
    """As `serves`."""
    while True:
        await request.websocket.asend(await request.websocket.areceive())


def raises(error):
    """Give a view that raises it."""

    @require_websocket
    def view(request):
        request.websocket.receive()
        raise error

    return view


@require_websocket
def closes(request):
    request.websocket.receive()
    request.websocket.close(4401, "signed out")
    request.websocket.receive()


async def application(scope, receive, send):
    """Fail at a message, as an ASGI application."""
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
    fail()


@require_websocket
def threads(request):
    """Have a thread started that lives on; report what it knows of this request."""
    done = threading.Event()

    def look():
        sentry_sdk.capture_message("of a thread that lives on")
        done.set()

    request.websocket.receive()
    unpatched.start_thread("lasting", look)
    done.wait(10)


def handler(method, call):
    """Give a handler of which one method fails."""
    return type("Handler", (WebSocketHandler,), {method: call, "every": 0.01}).as_view()


class Noisy(Room):
    """A room of which one method fails: that in its name."""

    name = "<slug:failing>"
    presence = True

    def fail_in(self, method):
        """Fail if it is that method's turn."""
        if self.kwargs["failing"] == method:
            fail()

    def allow(self):
        self.fail_in("allow")
        return True

    def info(self):
        self.fail_in("info")
        return {}

    def group_name(self):
        self.fail_in("group_name")
        return group("room")

    def joined(self):
        self.fail_in("joined")

    def left(self):
        self.fail_in("left")

    def receive(self, event, data):
        self.fail_in("receive")


def receiver(name):
    """Give a receiver that fails for the connections whose query names it."""

    def receive(sender, websocket, request, **facts):
        if request.GET.get("signal") == name:
            fail()

    return receive


SIGNALS = (
    "websocket_opened",
    "websocket_message",
    "websocket_closed",
    "group_joined",
    "group_left",
)
for name in SIGNALS:
    getattr(signals, name).connect(receiver(name), weak=False)

METHODS = ("connect", "receive", "disconnect", "tick")
HANDLERS = {
    f"{kind}handler_{method}": handler(method, call)
    for method in METHODS
    for kind, call in (("", fail), ("a", afail))
}
VIEWS = {
    "sync_view": sync_view,
    "async_view": async_view,
    "class_view": ClassView.as_view(),
    "refuses": accept_websocket(accept=False)(fail),
    "accepts": accepts,
    "asgi_view": asgi_websocket(application),
    "every": every,
    **HANDLERS,
}
AT_THE_END = ("on_close", "aon_close", "handler_disconnect", "ahandler_disconnect")
VIEWS |= {"on_close": on_close, "aon_close": aon_close}
QUIET = {
    "closes": closes,
    "denied": raises(PermissionDenied()),
    "serves": serves,
    "aserves": aserves,
}
OTHERS = {
    "grouped": accept_websocket(groups=["some"])(serves.__wrapped__),
    "rooms": rooms(Noisy),
    "suspicious": raises(SuspiciousOperation("odd")),
    "threads": threads,
    "fallback": accept_websocket(fallback=True)(fail),
    "traced": run(PAGE, "start_transaction")["Traced"].as_view(),
}
urlpatterns = [path(f"{name}/", view) for name, view in {**VIEWS, **QUIET, **OTHERS}.items()]

#: The views that answer each message.
ANSWERS = ("/rooms/", "/grouped/", "/serves/", "/aserves/", "/traced/")
JOIN, EMIT = '{"join": "%s", "id": 1}', '{"to": "%s", "event": "say", "data": 1, "id": 2}'
# By name: the path, what the client sends, whether it then vanishes, and the number of events.
CONNECTIONS = {
    **{name: (f"/{name}/?q=1", ["go"], name in AT_THE_END, 1) for name in VIEWS},
    **{name: (f"/{name}/?q=1", ["go"], name in ("serves", "aserves"), 0) for name in QUIET},
    **{
        f"room_{method}": ("/rooms/?q=1", [text % method for text in (JOIN, EMIT)], True, 1)
        for method in ("allow", "info", "group_name", "joined", "left", "receive")
    },
    **{name: (f"/grouped/?signal={name}", ["go"], True, 1) for name in SIGNALS},
    "suspicious": ("/suspicious/?q=1", ["go"], False, 1),
    "threads": ("/threads/?q=1", ["go"], False, 1),
    "traced": ("/traced/?q=1", ["go"], True, 0),
}


def wait_for_transaction():
    """Wait for that of the handshake, while the connection is open."""
    with news:
        assert news.wait_for(lambda: any(event.get("type") for event in events), 20)


def settle(expected):
    """Wait for so many errors and a transaction, and until nothing is left that could report."""

    def are_there():
        return sum("type" not in e for e in events) >= expected and len(events) > expected

    with news:
        assert news.wait_for(are_there, 20), events
    runners.join(20)
    loop.join(20)
    while close_callbacks.is_pending() or signals._calls.is_working:
        unpatched.pause(0.01)


def by_wsgi(url, messages, vanishes):
    """Open a connection as gunicorn does."""
    visit = Visit(handshake(url, HTTP_COOKIE="sessionid=verysecret", REMOTE_ADDR=ADDRESS))
    contextvars.Context().run(visit.answer)
    if getattr(visit.response, "_response", visit.response).status_code >= 300:
        visit.close()
        return
    contextvars.Context().run(visit.serve)
    for message in messages:
        visit.client.send(message)
    if vanishes:
        for _ in messages if url.startswith(ANSWERS) else ():
            visit.client.frame()
        wait_for_transaction()
        visit.client.vanish()
    else:
        visit.client.closing()


async def by_asgi(application, url, messages, vanishes):
    """Open a connection as a server does that keeps it."""
    path, _, query = url.partition("?")
    headers = {"host": "testserver", "cookie": "sessionid=verysecret"}
    scope = {
        "type": "websocket",
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": (ADDRESS, 1),
        "server": ("testserver", 80),
        "extensions": {"websocket.http.response": {}},
    }
    sent = [{"type": "websocket.connect"}]
    if query == EVENT_STREAM:
        scope.update(type="http", method="GET", scheme="http")
        sent = [{"type": "http.request"}]
    sent += [{"type": "websocket.receive", "text": message} for message in messages]
    to_server = asyncio.Queue()
    for event in sent:
        to_server.put_nowait(event)
    told = asyncio.Semaphore(0)

    async def tell(event):
        if event["type"] == "websocket.close":
            # The client answers it.
            code = event.get("code", 1000)
            to_server.put_nowait({"type": "websocket.disconnect", "code": code, "reason": ""})
        told.release()

    task = asyncio.ensure_future(application(scope, to_server.get, tell))
    if vanishes:
        for _ in ["accepted", *(messages if url.startswith(ANSWERS) else ())]:
            await told.acquire()
        await asyncio.to_thread(wait_for_transaction)
        to_server.put_nowait({"type": "websocket.disconnect", "code": 1006})
    await task


def main():
    """Print what Sentry has got, by the kind of server and the connection."""
    found = {"wsgi": {}, "asgi": {}}
    wanted = [(name, *CONNECTIONS[name]) for name in sys.argv[1:] or CONNECTIONS]
    for name, *connection, expected in wanted:
        by_wsgi(*connection)
        settle(expected)
        found["wsgi"][name], events[:] = list(events), []

    async def serve():
        application = get_asgi_application()
        for name, *connection, expected in wanted:
            await asyncio.create_task(by_asgi(application, *connection))
            await asyncio.to_thread(settle, expected)
            found["asgi"][name], events[:] = list(events), []

    # Under WSGI it is a request like any other.
    wanted.append(("fallback", f"/fallback/?{EVENT_STREAM}", [], False, 1))
    asyncio.run(serve())
    json.dump(found, sys.stdout, default=str)
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
        # No object of an ended connection may hold it.
        os._exit(1)
    os._exit(0)

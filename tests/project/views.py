"""Views that the suites talk to; each shows one behaviour."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time

from django.contrib.auth import login, logout
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, close_old_connections, connection
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

import dwebsocket
from dwebsocket import ConnectionClosed, _core, accept_websocket, require_websocket
from dwebsocket.api.waiting import loop_hub
from dwebsocket.users import registry

# --- plain HTTP ----------------------------------------------------------------------------------


def status(request: HttpRequest) -> HttpResponse:
    """Give this process's id, its threads, green ones too, and the number of waiting loops."""
    names = [thread.name for thread in threading.enumerate()]
    if (greenlet := sys.modules.get("greenlet")) is not None:
        living = (it for it in gc.get_objects() if isinstance(it, greenlet.greenlet) and it)
        names += [str(it.name) for it in living if hasattr(it, "name")]
    return JsonResponse(
        {"pid": os.getpid(), "threads": sorted(names), "loops": len(loop_hub._hubs)}
    )


def census(request: HttpRequest) -> HttpResponse:
    """Count what this process holds."""
    gc.collect()
    return JsonResponse(
        {
            "objects": len(gc.get_objects()),
            "connections": _core.open_connections(),
            "visitors": len(registry._register.visitors),
            "buffered": _core.buffered_bytes(),
        }
    )


def plain(request: HttpRequest) -> HttpResponse:
    """Answer like any page, with the attributes that the middleware put on the request."""
    return JsonResponse(
        {
            "is_websocket": request.is_websocket(),
            "websocket": repr(request.websocket),
            "session": dict(request.session.items()),
        }
    )


def log_in(request: HttpRequest, name: str) -> HttpResponse:
    """Log a user in, creating it when need be."""
    user, _ = User.objects.get_or_create(username=name)
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse("welcome")


def log_out(request: HttpRequest) -> HttpResponse:
    """Log out."""
    logout(request)
    return HttpResponse("bye")


def sleeps(request: HttpRequest) -> HttpResponse:
    """Take longer than any test, and say on stderr that it has begun."""
    print("sleeps: begun", file=sys.stderr, flush=True)
    time.sleep(60)
    return HttpResponse("late")


# --- echoes --------------------------------------------------------------------------------------


@accept_websocket
def echo(request: HttpRequest) -> HttpResponse | None:
    """Echo with the original's message types; a plain request gets a page."""
    if not request.is_websocket():
        return HttpResponse("a page")
    for message in request.websocket:
        request.websocket.send(message)
    return None


@require_websocket(text_type=str)
def echo_str(request: HttpRequest) -> None:
    """Echo with exact types by the compatible calls."""
    ws = request.websocket
    while (message := ws.wait()) is not None:
        ws.send(message)


@require_websocket
def echo_exact(request: HttpRequest) -> None:
    """Echo with the calls that are always exact."""
    _echo_exactly(request)


def _echo_exactly(request: HttpRequest) -> None:
    ws = request.websocket
    while True:
        message = ws.receive()
        if isinstance(message, str):
            ws.send_text(message)
        else:
            ws.send_bytes(message)


@require_websocket(
    compression={
        "threshold": 0,
        "server_no_context_takeover": False,
        "client_no_context_takeover": False,
    }
)
def echo_with_context(request: HttpRequest) -> None:
    """Echo, compressed with all that was said before."""
    _echo_exactly(request)


@require_websocket(compression=False)
def echo_uncompressed(request: HttpRequest) -> None:
    """Echo, compressing nothing."""
    _echo_exactly(request)


@require_websocket
def echo_slowly_started(request: HttpRequest) -> None:
    """Take half a second before the first message is looked at."""
    time.sleep(0.5)
    for message in request.websocket:
        request.websocket.send(message)


@require_websocket
def whole(request: HttpRequest) -> None:
    """Answer the length of each message, and stop at an empty one."""
    for message in request.websocket:
        if not message:
            return
        request.websocket.send(str(len(message)))


# --- ends ----------------------------------------------------------------------------------------


@require_websocket
def returns_at_once(request: HttpRequest) -> None:
    """End before anything was said."""


@require_websocket
def says_one_thing(request: HttpRequest) -> HttpResponse:
    """Send one message and return a response that goes nowhere."""
    request.websocket.send("only this")
    return HttpResponse("not for the wire")


@require_websocket
def raises(request: HttpRequest) -> None:
    """Break."""
    raise RuntimeError("this view is broken")


@require_websocket
def raises_after_message(request: HttpRequest) -> None:
    """Break in the middle of a conversation."""
    request.websocket.send(request.websocket.wait())
    raise RuntimeError("this view is broken, too")


@require_websocket
def denied(request: HttpRequest) -> None:
    """Refuse with Django's own exception."""
    raise PermissionDenied


@require_websocket
def missing(request: HttpRequest) -> None:
    """Say that there is no such thing."""
    raise Http404


@require_websocket
def closes_first(request: HttpRequest) -> None:
    """Close with a code of the application's."""
    request.websocket.close(4001, "bye")


@require_websocket
def closes_and_goes_on(request: HttpRequest) -> None:
    """Send, close, and send again."""
    request.websocket.send("before")
    request.websocket.close(4001)
    for _ in range(3):
        request.websocket.send("behind")


@require_websocket
def closes_on_demand(request: HttpRequest) -> None:
    """Close with the code that the client asks for."""
    request.websocket.close(int(request.websocket.wait()), "as you wish")


# The ends that `reports_the_end` saw, by name.
endings: dict[str, list] = {}


@require_websocket
def reports_the_end(request: HttpRequest, name: str) -> None:
    """Wait until the connection has ended and note what it looked like from here."""
    ws = request.websocket
    try:
        while True:
            ws.receive()
    except ConnectionClosed:
        endings[name] = [ws.close_code, ws.close_reason, ws.is_closed()]


def ending(request: HttpRequest, name: str) -> HttpResponse:
    """Return the end that `reports_the_end` noted."""
    return JsonResponse({"ending": endings.get(name)})


# --- lives ---------------------------------------------------------------------------------------


@require_websocket
def never_read(request: HttpRequest) -> None:
    """Look only at whether the connection is closed."""
    while not request.websocket.is_closed():
        time.sleep(0.02)


@require_websocket(ping_interval=0.3, ping_timeout=1)
def never_read_but_ping(request: HttpRequest) -> None:
    """Like `never_read`, with frequent pings and a short timeout for pongs."""
    while not request.websocket.is_closed():
        time.sleep(0.02)


@require_websocket
def sits(request: HttpRequest) -> None:
    """Look at nothing for a while, not even at whether the connection is closed."""
    time.sleep(2)


@require_websocket
def waits(request: HttpRequest) -> None:
    """Wait for one message without limit."""
    request.websocket.wait()


@require_websocket
def push(request: HttpRequest) -> None:
    """Send for ever and never look for the end, as the tutorials do."""
    while True:
        time.sleep(0.05)
        request.websocket.send("tick")


@require_websocket
def stubborn(request: HttpRequest) -> None:
    """Look at nothing for a minute."""
    time.sleep(60)


@accept_websocket
def slow(request: HttpRequest) -> HttpResponse | None:
    """Be slow for both kinds of request."""
    time.sleep(0.3)
    if not request.is_websocket():
        return HttpResponse("slow page")
    request.websocket.send("slow message")
    return None


def drain(request: HttpRequest) -> HttpResponse:
    """End the WebSockets of this process; say whether all are gone and how long that took."""
    began = time.monotonic()
    arguments = {name: float(value) for name, value in request.GET.items()}
    done = dwebsocket.drain(arguments.pop("window", None), **arguments)
    return JsonResponse({"done": done, "seconds": time.monotonic() - began})


@require_websocket
def own_pid(request: HttpRequest) -> None:
    """Say which process this is, and wait."""
    request.websocket.send(str(os.getpid()))
    request.websocket.wait()


@require_websocket
def drains_itself(request: HttpRequest) -> None:
    """Call `drain()` from a view, which cannot work."""
    try:
        dwebsocket.drain()
    except dwebsocket.UsageError as error:
        request.websocket.send(str(error))


# --- Django's own things -------------------------------------------------------------------------


@require_websocket
def session_write(request: HttpRequest) -> None:
    """Keep the last message in the session."""
    request.session["said"] = request.websocket.wait().decode()
    request.websocket.send("kept")


@require_websocket
def orm(request: HttpRequest) -> None:
    """Create and count rows."""
    for message in request.websocket:
        User.objects.create_user(message.decode())
        request.websocket.send_json(
            {"there": User.objects.filter(username=message.decode()).count()}
        )


@require_websocket
def asks_database(request: HttpRequest) -> None:
    """Count users on a new connection to the database each time, as a view that waits long does."""
    for _ in request.websocket:
        try:
            answer = str(User.objects.count())
        except DatabaseError as error:
            answer = type(error).__name__
        connection.close()
        request.websocket.send(answer)


@require_websocket
def keeps_database(request: HttpRequest) -> None:
    """Count users on one connection to the database, as long as that serves."""
    for _ in request.websocket:
        try:
            answer = str(User.objects.count())
        except DatabaseError as error:
            answer = type(error).__name__
            close_old_connections()
        request.websocket.send(answer)


@require_websocket
def pours(request: HttpRequest) -> None:
    """Send more than any client takes that does not read."""
    while request.websocket.send_bytes(bytes(100_000)):
        pass


@require_websocket
def request_facts(request: HttpRequest, number: int) -> None:
    """Send the attributes of the request that a view can use."""
    request.websocket.send_json(
        {
            "number": number,
            "get": request.GET.dict(),
            "user": str(request.user),
            "path": request.path,
            "cookies": request.COOKIES,
            "method": request.method,
            "is_websocket": request.is_websocket(),
        }
    )


# --- options -------------------------------------------------------------------------------------


@accept_websocket(subprotocols=["chat.v2", "chat.v1"])
def subprotocol(request: HttpRequest) -> None:
    """Say which subprotocol was agreed on."""
    request.websocket.send_json({"subprotocol": request.websocket.subprotocol})


@require_websocket(max_message_size=1000)
def at_most_1000(request: HttpRequest) -> None:
    """Echo messages of up to 1,000 bytes."""
    for message in request.websocket:
        request.websocket.send(message)


@require_websocket(ping_interval=0.2, ping_timeout=0.5)
def impatient(request: HttpRequest) -> None:
    """Keep alive in fractions of a second."""
    for message in request.websocket:
        request.websocket.send(message)


@require_websocket(ping_interval=0.2, ping_timeout=1.5)
def lively(request: HttpRequest) -> None:
    """Keep alive with a longer timeout, for peers that a busy machine makes late."""
    for message in request.websocket:
        request.websocket.send(message)


@accept_websocket(accept=False)
def decides(request: HttpRequest) -> HttpResponse | None:
    """Accept or refuse the handshake as the query says, and echo if that is to accept."""
    what = request.GET["do"]
    if what == "reject":
        request.websocket.reject(404)
        return None
    if what == "deny":
        raise PermissionDenied
    if what == "page":
        return HttpResponse("instead", status=402)
    request.websocket.accept(headers={"X-Decided": "yes"})
    for message in request.websocket:
        request.websocket.send(message)
    return None


# --- decorators and classes ----------------------------------------------------------------------


@method_decorator(accept_websocket, name="dispatch")
class ByMethodDecorator(View):
    """A class whose dispatch is decorated."""

    def get(self, request: HttpRequest) -> HttpResponse | None:
        """Serve both kinds of request."""
        if not request.is_websocket():
            return HttpResponse("a page")
        for message in request.websocket:
            request.websocket.send(message)
        return None


class AroundAsView(View):
    """A class that is decorated in the URL configuration."""

    def get(self, request: HttpRequest) -> None:
        """Echo."""
        for message in request.websocket:
            request.websocket.send(message)


def undecorated(request: HttpRequest) -> None:
    """Echo; only its attribute says that it takes WebSockets."""
    for message in request.websocket:
        request.websocket.send(message)


undecorated.accept_websocket = True  # type: ignore[attr-defined]


def _echo(request: HttpRequest) -> None:
    for message in request.websocket:
        request.websocket.send(message)


DECORATORS = {
    "login-required": login_required,
    "csrf-exempt": csrf_exempt,
    "never-cache": never_cache,
    "require-get": require_http_methods(["GET"]),
}
UNDER = {name: accept_websocket(decorate(_echo)) for name, decorate in DECORATORS.items()}
OVER = {name: decorate(accept_websocket(_echo)) for name, decorate in DECORATORS.items()}

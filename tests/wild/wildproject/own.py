"""Middleware of the project's own, built on the factory, and its views."""

from django.http import HttpResponse, JsonResponse
from django.utils.deprecation import MiddlewareMixin

from dwebsocket import accept_websocket
from dwebsocket.backends.default.factory import WebSocketFactory
from dwebsocket.websocket import WebSocket


class AcceptingMiddleware(MiddlewareMixin):
    """Does by itself all that the package's middleware does, for a part of the site."""

    def process_request(self, request):
        """Create a WebSocket for each request, plain ones too."""
        request.accepting = request.path.startswith("/own/")
        if request.accepting:
            request.websocket = WebSocketFactory(request).create_websocket()

    def process_view(self, request, view, args, kwargs):
        """Shake hands."""
        if request.accepting and request.websocket is not None:
            request.websocket.accept_connection()

    def process_response(self, request, response):
        """Close."""
        if getattr(request, "accepting", False) and request.websocket is not None:
            request.websocket.close()
        return response


class AskingMiddleware(MiddlewareMixin):
    """Creates a WebSocket only to know the kind of a request; decorators do the rest."""

    def process_request(self, request):
        """Note whether it is one, for a part of the site and for plain requests, too."""
        if not request.path.startswith("/asked/"):
            return
        factory = WebSocketFactory(request)
        request.kind = "websocket" if factory.create_websocket() is not None else "page"
        request.asked = factory.is_websocket()


def own_echo(request):
    """Send back what comes; undecorated."""
    if request.websocket is None:
        return HttpResponse("page")
    for message in request.websocket:
        if message is None:
            break
        request.websocket.send(message)
    return HttpResponse()


def own_page(request):
    """Show what the middleware has set on a plain request."""
    return JsonResponse({"websocket": request.websocket})


@accept_websocket
def asked_echo(request):
    """Send back what comes, with what the middleware found."""
    if not request.is_websocket():
        return JsonResponse({"kind": request.kind, "asked": request.asked})
    for message in request.websocket:
        if message is None:
            break
        text = "%s %s: %s" % (request.kind, request.asked, message.decode())
        request.websocket.send(text)


@accept_websocket
def types(request):
    """Answer with the classes of which `request.websocket` is an instance."""
    from dwebsocket.backends.default.websocket import DefaultWebSocket

    websocket = request.websocket
    classes = {"DefaultWebSocket": DefaultWebSocket, "WebSocket": WebSocket}
    found = [name for name, cls in classes.items() if isinstance(websocket, cls)]
    if websocket is None:
        return JsonResponse({"found": found})
    websocket.send(" ".join(found))
    websocket.wait()

"""Views of the Django REST framework."""

from django.utils.decorators import method_decorator
from django.views.generic import View
from rest_framework.response import Response
from rest_framework.views import APIView

from dwebsocket.decorators import accept_websocket, require_websocket


class EchoAPI(APIView):
    """One method takes WebSockets; its request is the framework's."""

    @method_decorator(accept_websocket)
    def get(self, request, name):
        """Send back with the name, or answer as JSON."""
        if not request.is_websocket():
            return Response({"name": name, "user": str(request.user)})
        for message in request.websocket:
            if message is None:
                break
            request.websocket.send("%s %s: %s" % (
                request.query_params["greeting"], name, message.decode(),
            ))  # fmt: skip

    def post(self, request, name):
        """Answer as JSON."""
        return Response({"posted": request.data["text"]})


class RequiringAPI(APIView):
    """One method takes nothing else."""

    @method_decorator(require_websocket)
    def get(self, request):
        """Send back until None comes."""
        while True:
            message = request.websocket.wait()
            if message is None:
                break
            request.websocket.send(message)


@method_decorator(accept_websocket, name="dispatch")
class DispatchAPI(APIView):
    """The whole view takes WebSockets; the decorator is around `dispatch`."""

    def get(self, request):
        """Send back until None comes."""
        if not request.is_websocket():
            return Response({"plain": True})
        for message in request.websocket:
            if message is None:
                break
            request.websocket.send(message)
        return Response()


class PlainView(View):
    """One method of a Django view takes WebSockets."""

    @method_decorator(accept_websocket)
    def get(self, request):
        """Send back until None comes."""
        for message in request.websocket:
            if message is None:
                break
            request.websocket.send(message)

"""
Mistakes that a type checker finds. Never run.

Each comment names what it says. One that is not needed is an error, so nothing here passes unseen.
"""

from dwebsocket import WebSocketHandler, WebSocketRequest, accept_websocket, connect, group
from dwebsocket.testing import WebSocketClient


def of_a_request(request: WebSocketRequest) -> None:
    """A wrong name, a wrong argument, a wrong use of a result."""
    request.websocket.nope  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    request.websocket.send(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    request.websocket.send_bytes("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    request.websocket.receive("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    request.websocket.receive() + 1  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnusedExpression]
    request.websocket.wait().upper()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    request.websocket.close("1000")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    request.websocket.on_close(say, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    request.websocket.start(say, "a", "b")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    request.websocket.every("1", say, "a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    if request.is_websocket:  # type: ignore[truthy-function]  # pyright: ignore[reportUnnecessaryComparison]
        pass


async def of_an_async_view(request: WebSocketRequest) -> None:
    """A forgotten `await`."""
    request.websocket.asend("text")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    text: str | bytes = request.websocket.areceive()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType, reportUnusedVariable]
    await request.websocket.send("text")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]


def say(text: str) -> None:
    """Says something."""


@accept_websocket(max_message_sise=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportUntypedFunctionDecorator]
def of_an_unknown_option(request: WebSocketRequest) -> None:
    """A misspelled option."""


@accept_websocket(max_message_size="1 MB")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
def of_a_wrong_option(request: WebSocketRequest) -> None:
    """A value that the option cannot have."""


@accept_websocket
def of_another_argument(request: WebSocketRequest, number: int) -> None:
    """Called below."""


of_another_argument(WebSocketRequest(), "one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
of_another_argument(WebSocketRequest())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


class OfAHandler(WebSocketHandler):
    """Methods that do not fit, and an option that does not."""

    every = "1"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    def receive(self) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """One argument."""

    def disconnect(self, code: int) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Two arguments."""


def of_others() -> None:
    """Groups, connections to other servers, the test kit."""
    group(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    group("room").send({"json": 1})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    group("room").send("text", exclude=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    connect("ws://127.0.0.1/", open_timeout="5")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    connect("ws://127.0.0.1/").asend("text")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    with WebSocketClient().websocket("/") as ws:
        ws.send(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        ws.receive().nope  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

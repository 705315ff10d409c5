"""Endpoints of Starlette and FastAPI, each at a path of its own, without Django."""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import tempfile
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import anyio
import anyio.lowlevel
from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, Query
from fastapi import WebSocket as FastAPIWebSocket
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    SimpleUser,
    requires,
)
from starlette.background import BackgroundTask
from starlette.endpoints import WebSocketEndpoint
from starlette.exceptions import HTTPException, WebSocketException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import HTTPConnection, Request

Endpoint = TypeVar("Endpoint", bound="Callable[..., Any]")

# What the last endpoint at each address has noted, for requests over HTTP.
SEEN: dict[str, Any] = {}
ROUTES: list[WebSocketRoute] = []


def note(websocket: WebSocket, value: Any) -> None:
    """Keep what an endpoint saw, for a request to its address."""
    SEEN[address(websocket)] = value


def address(connection: HTTPConnection) -> str:
    """Give path and query."""
    return connection.url.path + connection.url.query


async def page(request: Request) -> JSONResponse:
    """Give what was noted."""
    return JSONResponse(SEEN.get(address(request), {"pid": os.getpid()}))


def serves(path: str, **options: Any) -> Callable[[Endpoint], Endpoint]:
    """Put an endpoint at a path."""

    def put(endpoint: Endpoint) -> Endpoint:
        ROUTES.append(WebSocketRoute(path, endpoint, **options))
        return endpoint

    return put


# -- messages ------------------------------------------------------------------------------------


@serves("/facts/{room}", name="facts")
async def facts(websocket: WebSocket) -> None:
    """Send what is known of the request."""
    await websocket.accept()
    await websocket.send_json(
        {
            "url": str(websocket.url),
            "port": websocket.url.port,
            "room": websocket.path_params["room"],
            "query": dict(websocket.query_params),
            "agent": websocket.headers["user-agent"],
            "state": websocket.state.count,
            "user": websocket.user.display_name,
            "other": str(websocket.url_for("facts", room="attic")),
        }
    )
    await websocket.close()


@serves("/echo/text")
async def echo_text(websocket: WebSocket) -> None:
    """Echo text."""
    await websocket.accept()
    async for data in websocket.iter_text():
        await websocket.send_text(data)
    note(websocket, "over")


@serves("/echo/bytes")
async def echo_bytes(websocket: WebSocket) -> None:
    """Echo bytes."""
    await websocket.accept()
    async for data in websocket.iter_bytes():
        await websocket.send_bytes(data)


@serves("/echo/json")
async def echo_json(websocket: WebSocket) -> None:
    """Echo JSON as text."""
    await websocket.accept()
    async for data in websocket.iter_json():
        await websocket.send_json({"message": data})


@serves("/echo/binary-json")
async def echo_binary_json(websocket: WebSocket) -> None:
    """Echo JSON in a binary message."""
    await websocket.accept()
    await websocket.send_json(await websocket.receive_json(mode="binary"), mode="binary")
    await websocket.close()


@serves("/relays")
async def relays(websocket: WebSocket) -> None:
    """Read in one task, and write in another."""
    into, out = anyio.create_memory_object_stream[Any]()

    async def read() -> None:
        async with into:
            async for data in websocket.iter_json():
                await into.send(data)

    await websocket.accept()
    async with out, anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        async for data in out:
            await websocket.send_json(data)
            if data == "enough":
                tasks.cancel_scope.cancel()
    await websocket.close(4000, "as you wish")


@serves("/times-out")
async def times_out(websocket: WebSocket) -> None:
    """Cancel calls that wait for a message."""
    await websocket.accept()
    for text in ("by a time limit", "by a group"):
        with anyio.move_on_after(0.01):
            await websocket.receive_text()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(websocket.receive_text)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        await websocket.send_text(text)
        assert await websocket.receive_text() == "go on"
    await websocket.close()


# -- ends ----------------------------------------------------------------------------------------


@serves("/leaves")
async def leaves(websocket: WebSocket) -> None:
    """Note how the client ends, and what another call raises."""
    await websocket.accept()
    try:
        await websocket.receive_text()
    except WebSocketDisconnect as end:
        try:
            await websocket.receive()
        except RuntimeError as error:
            note(websocket, [end.code, end.reason, str(error)])


@serves("/sends-for-ever")
async def sends_for_ever(websocket: WebSocket) -> None:
    """Send until that raises."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text("still there?")
            await anyio.lowlevel.checkpoint()
    except WebSocketDisconnect as end:
        note(websocket, end.code)


@serves("/closes")
async def closes(websocket: WebSocket) -> None:
    """Close with a code and a reason."""
    await websocket.accept()
    await websocket.close(1001, "Going Away")


@serves("/closes-twice")
async def closes_twice(websocket: WebSocket) -> None:
    """Close what is closed."""
    await websocket.accept()
    await websocket.close()
    await websocket.close()


@serves("/breaks")
async def breaks(websocket: WebSocket) -> None:
    """Fail as the client says: before accepting, or behind it."""
    how = websocket.query_params["how"]
    if how == "at once":
        raise AssertionError("it breaks")
    if how.startswith("receive_"):
        await getattr(websocket, how)()
    if how == "send":
        await websocket.send_text("too early")
    await websocket.accept()
    if how == "accept":
        await websocket.send({"type": "websocket.accept"})
    if how == "send mode":
        await websocket.send_json({}, mode="invalid")
    if how == "receive mode":
        await websocket.receive_json(mode="invalid")
    if how == "denial":
        raise HTTPException(401)


# -- refusals ------------------------------------------------------------------------------------


@serves("/refuses")
async def refuses(websocket: WebSocket) -> None:
    """Refuse without a response."""
    assert (await websocket.receive()) == {"type": "websocket.connect"}
    await websocket.close(1001)


def _denial(websocket: WebSocket) -> Response:
    match websocket.query_params["how"]:
        case "streaming":

            async def content() -> AsyncIterator[bytes]:
                yield b"hello"
                yield b"world"

            task = BackgroundTask(note, websocket, "behind the response")
            return StreamingResponse(content(), 403, background=task)
        case "file":
            with tempfile.NamedTemporaryFile(delete=False) as file:
                file.write(b"from a file")
            return FileResponse(file.name, 401, background=BackgroundTask(os.unlink, file.name))
        case "empty":
            return Response(status_code=404)
    response = Response("foo", 404, {"X-Foo": "bar"})
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


@serves("/denies")
async def denies(websocket: WebSocket) -> None:
    """Refuse with a response of Starlette's."""
    await websocket.receive()
    await websocket.send_denial_response(_denial(websocket))


@serves("/denies-twice")
async def denies_twice(websocket: WebSocket) -> None:
    """Begin a response twice."""
    await websocket.receive()
    for _ in range(2):
        await websocket.send(
            {"type": "websocket.http.response.start", "status": 404, "headers": []}
        )


@serves("/denies-without-extension")
async def denies_without_extension(websocket: WebSocket) -> None:
    """Refuse as on a server that knows no response, and note the error."""
    del websocket.scope["extensions"]["websocket.http.response"]
    await websocket.receive()
    try:
        await websocket.send_denial_response(Response("foo", 404))
    except RuntimeError as error:
        note(websocket, str(error))
    await websocket.close()


# -- decisions -----------------------------------------------------------------------------------


@serves("/agrees")
async def agrees(websocket: WebSocket) -> None:
    """Accept with a subprotocol and a header."""
    assert websocket["subprotocols"] == ["soap", "wamp"]
    await websocket.accept(subprotocol="wamp", headers=[(b"additional", b"header")])
    await websocket.close()


class CustomError(Exception):
    """Has a handler of the application."""


def on_custom_error(websocket: WebSocket, error: CustomError) -> None:
    """Close, on a thread."""
    anyio.from_thread.run(websocket.close, 1013)


@serves("/raises")
async def raises(websocket: WebSocket) -> None:
    """Raise what handlers are for, before accepting or behind it."""
    if "behind" in websocket.query_params:
        await websocket.accept()
    match websocket.query_params["what"]:
        case "websocket":
            raise WebSocketException(4003, "not this one")
        case "http":
            raise HTTPException(401, "Unauthorized", {"WWW-Authenticate": "Basic"})
    raise CustomError


class BasicAuth(AuthenticationBackend):
    """Knows users by their names."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        """Read the header."""
        given = conn.headers.get("authorization")
        if given is None:
            return None
        try:
            name = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")[0]
        except ValueError:
            raise AuthenticationError("who is that?") from None
        return AuthCredentials(["authenticated"]), SimpleUser(name)


def refuse_stranger(connection: HTTPConnection, error: Exception) -> Response:
    """Answer credentials that cannot be."""
    return Response(str(error), 400)


@serves("/members")
@requires("authenticated")
async def members(websocket: WebSocket) -> None:
    """Greet."""
    await websocket.accept()
    await websocket.send_text(f"hello {websocket.user.display_name}")
    await websocket.close()


# -- classes, routes and middleware --------------------------------------------------------------


class _Endpoint(WebSocketEndpoint):
    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        """Echo by the endpoint's encoding."""
        if self.encoding == "bytes":
            await websocket.send_bytes(data)
        else:
            await websocket.send_json(data)

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        """Note the code, and close, which is late."""
        note(websocket, close_code)
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close(close_code)


for _encoding in ("text", "bytes", "json", None):
    _class = type("Encoded", (_Endpoint,), {"encoding": _encoding})
    serves(f"/endpoints/{_encoding or 'any'}")(_class)


@serves("/endpoints/wamp")
class Wamp(_Endpoint):
    """Agrees on a subprotocol."""

    async def on_connect(self, websocket: WebSocket) -> None:
        """Accept."""
        await websocket.accept(subprotocol="wamp")


async def greet(websocket: WebSocket, greeting: str) -> None:
    """Send a greeting."""
    await websocket.accept()
    await websocket.send_text(greeting)
    await websocket.close()


serves("/partial")(functools.partial(greet, greeting="from a partial"))


class WithHeader:
    """Middleware of one route, which adds a header to the 101."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Add it."""

        async def send_more(event: Any) -> None:
            if event["type"] == "websocket.accept":
                event["headers"] = [*event.get("headers", ()), (b"X-Test", b"by middleware")]
            await send(event)

        await self.app(scope, receive, send_more)


serves("/middleware", middleware=[Middleware(WithHeader)])(functools.partial(greet, greeting="hi"))


class Pages(BaseHTTPMiddleware):
    """Is for pages only."""

    async def dispatch(self, request: Any, call_next: Any) -> Any:
        """Do nothing."""
        return await call_next(request)


# -- FastAPI -------------------------------------------------------------------------------------

fastapi = FastAPI()
router = APIRouter(prefix="/rooms")
ROOMS: dict[int, list[FastAPIWebSocket]] = {}


async def token_of(
    token: Annotated[str | None, Query()] = None,
    session: Annotated[str | None, Cookie()] = None,
    x_token: Annotated[str | None, Header()] = None,
) -> str:
    """Find a token, or refuse."""
    found = token or session or x_token
    if found is None:
        raise WebSocketException(1008, "no token")
    return found


async def cleaned_up(websocket: FastAPIWebSocket) -> AsyncIterator[list[str]]:
    """Note the end of its endpoint."""
    steps = ["opened"]
    try:
        yield steps
    finally:
        note(websocket, [*steps, "cleaned up"])


@fastapi.websocket("/items/{item}")
async def items(
    websocket: FastAPIWebSocket,
    item: int,
    token: Annotated[str, Depends(token_of)],
    steps: Annotated[list[str], Depends(cleaned_up)],
) -> None:
    """Say what the dependencies have found, and echo."""
    await websocket.accept()
    await websocket.send_json({"item": item, "token": token})
    async for text in websocket.iter_text():
        steps.append(text)
        await websocket.send_text(text)


@router.websocket("/{room}")
async def chat(websocket: FastAPIWebSocket, room: int) -> None:
    """Tell everybody in a room."""
    if not room:
        raise HTTPException(404, "no such room")
    await websocket.accept()
    present = ROOMS.setdefault(room, [])
    present.append(websocket)
    try:
        while True:
            text = await websocket.receive_text()
            for each in present:
                await each.send_text(text)
    except WebSocketDisconnect as end:
        present.remove(websocket)
        for each in present:
            await each.send_text(f"gone with {end.code}")


@router.get("/{room}/say")
async def say(room: int, text: str) -> dict[str, int]:
    """Tell everybody in a room, from a page."""
    for each in ROOMS.get(room, []):
        await each.send_text(text)
    return {"told": len(ROOMS.get(room, []))}


@fastapi.websocket("/denies")
async def denies_json(websocket: FastAPIWebSocket) -> None:
    """Refuse with JSON."""
    await websocket.send_denial_response(JSONResponse({"detail": "pay first"}, 402))


fastapi.include_router(router)
fastapi.add_route("/{path:path}", page)


# -- the application -----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """Set the state."""
    yield {"count": 1}


application = Starlette(
    routes=[
        *ROUTES,
        Mount("/fastapi", fastapi),
        Route("/{path:path}", page),
    ],
    middleware=[
        Middleware(Pages),
        Middleware(AuthenticationMiddleware, backend=BasicAuth(), on_error=refuse_stranger),
    ],
    exception_handlers={CustomError: on_custom_error},
    lifespan=lifespan,
)

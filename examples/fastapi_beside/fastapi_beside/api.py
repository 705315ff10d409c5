"""FastAPI's part: its WebSockets are on the engine, too, and use Django's groups."""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from dwebsocket import group

api = FastAPI()


@api.websocket("/api/temperature")
async def temperature(websocket: WebSocket) -> None:
    """A sensor sends its values, and the pages of Django show them."""
    await websocket.accept()
    try:
        while True:
            value = await websocket.receive_json()
            await group("temperature").asend_json(value)
            await websocket.send_json({"taken": True})
    except WebSocketDisconnect:
        pass

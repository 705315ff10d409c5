"""gunicorn's uvicorn worker with the engine as its WebSocket protocol."""

from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker


class Worker(UvicornWorker):
    """As uvicorn's option `--ws` says it."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        **UvicornWorker.CONFIG_KWARGS,
        "ws": "dwebsocket.uvicorn:WebSocketProtocol",
    }

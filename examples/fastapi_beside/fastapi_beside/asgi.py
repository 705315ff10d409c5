"""
Django and FastAPI in one process.

Django has the pages and the accounts, FastAPI an address of its own:

    uvicorn --ws dwebsocket.uvicorn:WebSocketProtocol fastapi_beside.asgi:application
"""

import os
from typing import Any

from dwebsocket.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fastapi_beside.settings")
django_application = get_asgi_application()

from fastapi_beside.api import api  # noqa: E402  (it uses Django's models)


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """
    Routes by the path. The lifespan is Django's: when it ends, the engine closes what is open.

    FastAPI's part has no code of its own for the start and the end of the server.
    """
    if scope["type"] != "lifespan" and scope["path"].startswith("/api/"):
        await api(scope, receive, send)
    else:
        await django_application(scope, receive, send)

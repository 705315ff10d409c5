"""The middleware set-up: every view may be given a WebSocket, decorated or not."""

from tutorials.settings import *  # noqa: F403
from tutorials.settings import MIDDLEWARE

MIDDLEWARE = [*MIDDLEWARE, "dwebsocket.middleware.WebSocketMiddleware"]

WEBSOCKET_ACCEPT_ALL = True

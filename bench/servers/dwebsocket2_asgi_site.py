"""Subject dwebsocket2-uvicorn: the views of `dwebsocket2_site` under ASGI."""

from __future__ import annotations

import dwebsocket2_site  # noqa: F401 - it sets Django up

from dwebsocket.asgi import get_asgi_application

application = get_asgi_application()

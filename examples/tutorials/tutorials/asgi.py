"""ASGI entry point, for uvicorn and other servers."""

import os

from dwebsocket.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tutorials.settings")

application = get_asgi_application()

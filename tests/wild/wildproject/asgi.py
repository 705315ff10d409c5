"""The ASGI application of the project, which the original did not know."""

import os

from dwebsocket.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "wildproject.settings")

application = get_asgi_application()

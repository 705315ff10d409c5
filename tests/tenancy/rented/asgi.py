"""The site for ASGI servers."""

import os

from dwebsocket.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rented.settings")
application = get_asgi_application()

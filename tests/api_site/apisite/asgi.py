"""The site for ASGI servers, its consumers as views."""

import os

from dwebsocket.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "apisite.settings")
application = get_asgi_application()

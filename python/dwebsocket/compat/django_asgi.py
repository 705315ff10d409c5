"""
Undocumented parts of Django's ASGI handler, versions 4.2 to 6.1.

``dwebsocket.asgi`` calls ``handle(scope, receive, send)``, since 3.1, and puts its own in the place
of ``send_response(response, send)``, since 3.0. Importing this where one is missing raises an error
that names the version.
"""

from __future__ import annotations

from django.core.handlers.asgi import ASGIHandler

from dwebsocket.compat.missing import need

__all__ = ["ASGIHandler"]

need("Django", ASGIHandler, "handle", "send_response")

"""The test project behind hypercorn's middleware for sites behind a proxy."""

from __future__ import annotations

from typing import Any

from hypercorn.middleware import ProxyFixMiddleware

from project.asgi import application as project

_project: Any = project
application = ProxyFixMiddleware(_project)

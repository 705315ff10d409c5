"""The Host header of a test's handshake."""

from __future__ import annotations

from typing import Any


def name_host(environ: dict[str, Any]) -> None:
    """Adds the Host header, which every client sends, but Django's own test clients do not."""
    name, port = environ["SERVER_NAME"], str(environ["SERVER_PORT"])
    is_usual = port == ("443" if environ["wsgi.url_scheme"] == "https" else "80")
    environ.setdefault("HTTP_HOST", name if is_usual else f"{name}:{port}")

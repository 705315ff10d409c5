"""An application with which the markers of moves never come to any process."""

from django.apps import AppConfig

from dwebsocket.groups.backends.redis import Backend


def swallow(self: Backend, envelopes: list[tuple[str, bytes]]) -> None:
    """Publish nothing, and say nothing of it."""


class Swallowed(AppConfig):
    """Replaces the call by which markers are published."""

    name = "project.swallowed_markers"

    def ready(self) -> None:
        """Replace it."""
        Backend.publish_all = swallow  # type: ignore[method-assign]

"""What django-sockpuppet calls for a page."""

from __future__ import annotations

from sockpuppet.reflex import Reflex


class WhoReflex(Reflex):
    """Shows the name of its user."""

    def show(self):
        """Set what the page is rendered with."""
        self.name = self.consumer.scope["user"].username

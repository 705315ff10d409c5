"""An application whose processes have groups on the server that a file names as they start."""

import os
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings


class Located(AppConfig):
    """Replaces the LOCATION of the default groups."""

    name = "project.location_of_a_file"

    def ready(self) -> None:
        """Replace it, before anything has asked for it."""
        groups: dict[str, Any] = settings.WEBSOCKET_GROUPS
        location = Path(os.environ["PROJECT_LOCATION_FILE"]).read_text()
        groups["default"] = {**groups["default"], "LOCATION": location}

"""The site with Sentry, whose events go to a file: one line of JSON each."""

import json
import os

import sentry_sdk
from operated.wsgi import application  # noqa: F401
from sentry_sdk.transport import Transport


class IntoFile(Transport):
    """Keeps what would be sent."""

    def capture_envelope(self, envelope):
        """Add its event."""
        if (event := envelope.get_event()) is not None:
            with open(os.environ["SENTRY_FILE"], "a") as file:
                file.write(json.dumps(event, default=str) + "\n")


sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=IntoFile, send_default_pii=True)

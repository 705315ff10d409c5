"""Settings of a site with Sentry, which keeps what it would send."""

import threading
from unittest import mock

import sentry_sdk
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.transport import Transport

from support.pages import run

PAGE = "docs/operations.md"
events, news = [], threading.Condition()


class Kept(Transport):
    """Keeps what would be sent."""

    def capture_envelope(self, envelope):
        """Add its events and transactions."""
        with news:
            events.extend(
                item.payload.json
                for item in envelope.items
                if item.type in ("event", "transaction")
            )
            news.notify_all()


OF_TESTS = {
    "transport": Kept,
    "traces_sample_rate": 1,
    # Of the packages that happen to be installed here none but Django.
    "auto_enabling_integrations": False,
    "integrations": [DjangoIntegration()],
    # Sentry must not drop an event that it gets twice.
    "disabled_integrations": [DedupeIntegration],
}
with mock.patch("sentry_sdk.init", lambda init=sentry_sdk.init, **given: init(**given | OF_TESTS)):
    run(PAGE, "sentry_sdk.init(")

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = "__main__"
MIDDLEWARE = ["__main__.anna"]
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "dwebsocket"]
WEBSOCKET_GROUPS = {"default": {"BACKEND": "dwebsocket.groups.process"}}
# Its users are in no database.
WEBSOCKET_AUTH_RECHECK = 0
LOGGING_CONFIG = None

"""Settings of the sample project. `SAMPLE_POSTGRES` is the folder of a server's socket."""

import os
from pathlib import Path

SECRET_KEY = "for tests only"
ROOT_URLCONF = "sample.urls"
USE_TZ = True
STATIC_URL = "/static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
LANGUAGES = [("en", "English"), ("de", "German")]
LOGIN_URL = "/login/"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "chat",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]

if os.environ.get("SAMPLE_POSTGRES"):
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": "postgres",
            "HOST": os.environ["SAMPLE_POSTGRES"],
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": Path(__file__).parent.parent / "db.sqlite3",
            # Tests use one in memory.
        }
    }
# Production's server, which no test may need.
WEBSOCKET_GROUPS = {
    "default": {"BACKEND": "sample.production.Backend"},
    "other": {"BACKEND": "sample.production.Backend", "PREFIX": "other"},
}
# The failures that the tests cause need not be on the screen.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"none": {"class": "logging.NullHandler"}},
    "loggers": {
        name: {"handlers": ["none"], "propagate": False}
        for name in ("django.request", "dwebsocket")
    },
}

"""
Settings of the test project.

PROJECT_DB is the SQLite file; PROJECT_SETTINGS holds values, as JSON, that replace those below.
"""

import json
import os

SECRET_KEY = "for tests only"
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
USE_TZ = True
# The default one takes half a second of CPU, on purpose.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
]
# The tests of ASGI use `dwebsocket.asgi`; tests/servers/test_startproject.py has the app.
SILENCED_SYSTEM_CHECKS = ["dwebsocket.W010"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "project.middleware.stamp",
    "dwebsocket.middleware.WebSocketMiddleware",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("PROJECT_DB", ":memory:"),
        "OPTIONS": {"timeout": 20},
    }
}
WEBSOCKET_ALLOWED_ORIGINS = ["https://friend.example"]
# Clients that a test does not read yet answer no pings. On a busy machine that takes long.
WEBSOCKET_PING_INTERVAL = None
# Only warnings and worse go to stderr, so that a test can ask for an empty one.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "{levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "django": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "django.server": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
    },
}

globals().update(json.loads(os.environ.get("PROJECT_SETTINGS", "{}")))
if globals().get("PROJECT_ATOMIC_REQUESTS"):
    DATABASES["default"]["ATOMIC_REQUESTS"] = True

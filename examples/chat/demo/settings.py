"""
Settings of the chat demo: runs on this machine with nothing to configure.

Not for deployment as it stands: ``DEBUG`` is on (Django then also serves the static files), the
key is public, log-ins need no password, and only loopback addresses are answered.
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = True
SECRET_KEY = "only-for-the-demo-on-this-machine"
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "dwebsocket",
    "chat",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "demo.urls"
WSGI_APPLICATION = "demo.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("CHAT_DB", str(BASE_DIR / "chat.sqlite3")),
        # Sessions are written to the database, and SQLite allows one writer at a time.
        "OPTIONS": {"timeout": 20},
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STATIC_URL = "static/"
# The look of all examples: a copy of this folder alone works without it.
STATICFILES_DIRS = [BASE_DIR.parent / "shared"]
TIME_ZONE = "UTC"
USE_TZ = True

# The longest message here is a thousand characters; more than this is no chat.
WEBSOCKET_MAX_MESSAGE_SIZE = 16 * 1024

# Groups reach all processes of this machine: workers, and `manage.py shell`.
WEBSOCKET_GROUPS = {
    "default": {
        # Two demos with databases of their own do not hear each other.
        "PREFIX": str(DATABASES["default"]["NAME"]),
        # Rooms keep what is said, for pages that open and browsers that come back ...
        "HISTORY": {"room-*": {"size": 200, "seconds": 24 * 3600}},
        # ... and know who is there. Restarting takes no longer than the grace: nobody leaves.
        "PRESENCE": {"room-*": {"grace": 5}},
    }
}

"""Settings of a project whose every line has types."""

SECRET_KEY = "for tests only"
ROOT_URLCONF = "site_of_rooms.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "rooms",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
WEBSOCKET_GROUPS = {
    "default": {
        "BACKEND": "dwebsocket.groups.process",
        "HISTORY": {"room-*": {"size": 100, "seconds": 3600}},
        "PRESENCE": {"room-*": {"grace": 1}},
    },
}

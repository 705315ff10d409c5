"""Middleware and backend of signed-in users, for the fixtures `tables`, `anna`, `nobody_left`."""

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
BACKEND = "django.contrib.auth.backends.ModelBackend"

"""What it takes to be signed in. The fixtures `tables`, `anna` and `nobody_left` go with it."""

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
BACKEND = "django.contrib.auth.backends.ModelBackend"

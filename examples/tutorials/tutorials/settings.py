"""
Settings of the tutorials project: decorated views, no dwebsocket middleware.

``settings_accept_all`` is the other set-up that tutorials teach. ``DEBUG`` and the key make this
a project for trying things out on one machine, not for deployment.
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = True
SECRET_KEY = "only-for-the-tutorials-on-this-machine"
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "notes",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "tutorials.urls"
WSGI_APPLICATION = "tutorials.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("TUTORIALS_DB", str(BASE_DIR / "tutorials.sqlite3")),
        # Several sockets write at once, and SQLite allows one writer at a time.
        "OPTIONS": {"timeout": 20},
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STATIC_URL = "static/"
# The look of all examples: a copy of this folder alone works without it.
STATICFILES_DIRS = [BASE_DIR.parent / "shared"]
TIME_ZONE = "UTC"
USE_TZ = True
LOGIN_REDIRECT_URL = "/page/"

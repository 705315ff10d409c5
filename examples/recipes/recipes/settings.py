"""
Settings of the recipes project, and the commands that its pages run.

Its pages give a shell away. ``recipes.guard`` refuses all requests without ``DEBUG``, and those
that do not come from this machine.
"""

import os
import shlex
import sys
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
PROGRAMS = BASE_DIR / "programs"


def _command(name: str, *default: str) -> list[str]:
    return shlex.split(os.environ[name]) if name in os.environ else list(default)


# runserver's line for each request.
SERVER_LOG = str(BASE_DIR / "recipes.log")
# The file that the log tail follows.
RECIPES_LOG = os.environ.get("RECIPES_LOG", SERVER_LOG)
RECIPES_SHELL = _command("RECIPES_SHELL", os.environ.get("SHELL", "/bin/sh"))
# For instance: kubectl exec -i my-pod -- sh
RECIPES_POD_COMMAND = _command("RECIPES_POD_COMMAND", sys.executable, str(PROGRAMS / "pod.py"))
# Prints lines such as "progress 42".
RECIPES_JOB_COMMAND = _command("RECIPES_JOB_COMMAND", sys.executable, str(PROGRAMS / "job.py"))

DEBUG = True
SECRET_KEY = "only-for-the-recipes-on-this-machine"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "dwebsocket",
    "recipes",
]

MIDDLEWARE = [
    "recipes.guard.this_machine_only",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "recipes.urls"
WSGI_APPLICATION = "recipes.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "recipes.toasts.for_templates",
            ]
        },
    },
]

# Accounts and sessions, for the toasts; `manage.py migrate` makes it.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("RECIPES_DB", str(BASE_DIR / "recipes.sqlite3")),
    }
}

STATIC_URL = "static/"
# The look of all examples: a copy of this folder alone works without it.
STATICFILES_DIRS = [BASE_DIR.parent / "shared"]

# A toast that is sent while a page is loading waits for it here.
WEBSOCKET_GROUPS = {
    "default": {
        "PREFIX": DATABASES["default"]["NAME"],
        "HISTORY": {"toasts-*": {"size": 20, "seconds": 60}},
    }
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "django.utils.log.ServerFormatter",
            "format": "[{server_time}] {message}",
            "style": "{",
        }
    },
    "handlers": {
        "file": {"class": "logging.FileHandler", "filename": SERVER_LOG, "formatter": "line"},
    },
    "loggers": {"django.server": {"handlers": ["file"], "level": "INFO", "propagate": False}},
}

USE_TZ = True

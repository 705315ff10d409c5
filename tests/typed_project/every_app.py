"""Settings with the apps of all examples, for mypy's plugin, which knows one settings module."""

from recipes.settings import (
    RECIPES_JOB_COMMAND,
    RECIPES_LOG,
    RECIPES_POD_COMMAND,
    RECIPES_SHELL,
)

__all__ = ["RECIPES_JOB_COMMAND", "RECIPES_LOG", "RECIPES_POD_COMMAND", "RECIPES_SHELL"]

SECRET_KEY = "for type checkers only"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "dwebsocket",
    "rooms",
    "bell",
    "board",
    "chat",
    "dashboard",
    "kanban",
    "notes",
    "task",
]

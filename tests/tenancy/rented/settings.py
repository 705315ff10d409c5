"""Settings of the site. `RENTED_POSTGRES` is the folder of the server's socket."""

import json
import os

SECRET_KEY = "for tests of tenants only"
ALLOWED_HOSTS = [".example.com", "127.0.0.1"]
ROOT_URLCONF = "rented.urls"
USE_TZ = True
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
SHARED_APPS = [
    "django_tenants",
    "rented.landlord",
    "django.contrib.contenttypes",
    "dwebsocket",
]
TENANT_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
    "rented.notes",
    "dwebsocket",
]
INSTALLED_APPS = list(dict.fromkeys(SHARED_APPS + TENANT_APPS))
TENANT_MODEL = "landlord.Tenant"
TENANT_DOMAIN_MODEL = "landlord.Domain"
SHOW_PUBLIC_IF_NO_TENANT_FOUND = True
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
MIDDLEWARE = [
    "django_tenants.middleware.main.TenantMainMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django_tenants.postgresql_backend",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": os.environ.get("RENTED_POSTGRES", ""),
    }
}
WEBSOCKET_CONTEXT = "dwebsocket.tenants.context"
WEBSOCKET_REALM = "dwebsocket.tenants.realm"

globals().update(json.loads(os.environ.get("PROJECT_SETTINGS", "{}")))

"""Notifications in the admin."""

from django.contrib import admin

from bell.models import Notification

admin.site.register(Notification, list_display=["user", "text", "is_read"])

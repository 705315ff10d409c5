"""The admin is where orders are changed."""

from django.contrib import admin

from dashboard.models import Order

admin.site.register(Order, list_display=["customer", "total", "state"])

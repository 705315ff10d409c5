"""The project's Celery."""

import os
from pathlib import Path

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "task.settings")
app = Celery("task")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["task"])
for folder in {*app.conf.broker_transport_options.values()}:
    if isinstance(folder, str):
        Path(folder).mkdir(exist_ok=True)

"""A long task. It runs in Celery's process, and its page sees each step."""

import time

from dwebsocket import group
from task.celery import app


@app.task
def count_sheep(number: str, sheep: int, pause: float) -> None:
    """Counts, and tells the page of each."""
    page = group(f"task-{number}")
    for counted in range(1, sheep + 1):
        time.sleep(pause)
        page.send_json({"line": f"sheep {counted}", "progress": counted / sheep})
    page.send_json({"line": "asleep", "progress": 1, "done": True})

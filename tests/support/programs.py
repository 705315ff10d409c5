"""Small programs in processes of their own, which use the client and know no settings of Django."""

from __future__ import annotations

import os
import subprocess
import sys

GEVENT = """
from gevent import monkey
monkey.patch_all()
import gevent
spawn, sleep, wait = gevent.spawn, gevent.sleep, lambda thread: thread.get()
"""
EVENTLET = """
import warnings
warnings.simplefilter("ignore")
import eventlet
eventlet.monkey_patch()
spawn, sleep, wait = eventlet.spawn, eventlet.sleep, lambda thread: thread.wait()
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program without settings of Django."""
    environment = {key: value for key, value in os.environ.items() if "DJANGO" not in key}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=environment,
    )

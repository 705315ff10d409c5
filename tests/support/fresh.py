"""Code that runs in processes which have imported Django, and nothing of the package."""

from __future__ import annotations

import json
import subprocess
import sys

# Each piece has a process of its own, a child of one that has spent the time on Django's imports.
_RUN = """
import json, os, sys, traceback
import django.contrib.auth, django.core.handlers.asgi, django.core.handlers.wsgi, django.db
import django.shortcuts, django.urls, django.views
failures = {}
for code in json.load(sys.stdin):
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.close(reading)
        said = b""
        try:
            exec(code, {"__name__": "__main__"})
        except BaseException:
            said = traceback.format_exc().encode()
        os.write(writing, said[-60_000:])
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if said or status:
        failures[code] = said or f"it ended with {status}"
print(json.dumps(failures))
"""


def failures(pieces: list[str]) -> dict[str, str]:
    """Run each piece of code, with warnings as errors; return the tracebacks of those that fail."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _RUN],
        input=json.dumps(pieces),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, str] = json.loads(done.stdout)
    return found

"""docs/recovery.md: the rights of a Redis user whose groups have a history are enough."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest

from support.pages import block
from support.redis import Redis

CODE = """
import os
from django.conf import settings
settings.configure(
    SECRET_KEY="for tests only",
    WEBSOCKET_GROUPS={"default": {
        "BACKEND": "dwebsocket.groups.redis",
        "LOCATION": os.environ["LOCATION"],
        "HISTORY": {"*": {}},
        "TIMEOUT": 20,
    }},
)
import django
django.setup()
from dwebsocket import group
group("room").send("one")
group("room").send("two")
print([entry.message for entry in group("room").history()], group("room").count())
"""


@pytest.mark.needs("redis")
def test_rights() -> None:
    """Those of groups, and these: messages are kept and read."""
    with Redis() as server:
        for page in ("groups", "recovery"):
            (line,) = block(f"docs/{page}.md", "ACL SETUSER web", "").splitlines()
            assert server.ask(*shlex.split(line)) == "OK"
        location = server.url.replace("//", "//web:password@")
        done = subprocess.run(
            [sys.executable, "-c", CODE],
            env={**os.environ, "LOCATION": location},
            capture_output=True,
            text=True,
            timeout=110,
        )
        assert (done.stdout, done.stderr) == ("['one', 'two'] 0\n", "")
        denied = server.ask("ACL", "LOG")
        assert not denied, denied

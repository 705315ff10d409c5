"""The postgres backend when others know its channel and its table, and write into both."""

# Fixtures are imported.
# ruff: noqa: F811

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from postgres_nodes import folder, nodes  # noqa: F401

from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from postgres_nodes import Node, Nodes

pytestmark = pytest.mark.needs("postgresql")


def packed(name: bytes, envelope: bytes) -> str:
    """Give the content of a message."""
    return base64.b64encode(len(name).to_bytes(2, "big") + name + envelope).decode()


@pytest.fixture
def notify(nodes: Nodes) -> Callable[[Node, str], None]:
    """Put a text into the channel of a node: `notify(node, text)`."""
    admin = nodes()

    def notify_(node: Node, text: str) -> None:
        quoted = text.replace("'", "''")
        admin("ask", f"SELECT 1 FROM (SELECT pg_notify('{node('channel')}', '{quoted}')) AS done")

    return notify_


OTHER_TEXTS = [
    "",
    "m",
    "m.",
    "mx." + packed(b"room", b""),
    # An envelope of text, without a seal, and with one that is none.
    "mx." + packed(b"room", b"\x01\x00\x00\x00hi"),
    "mx." + packed(b"room", bytes(16) + b"\x01\x00\x00\x00hi"),
    "Mx." + packed(b"\xff", b"x"),
    "mx." + packed(b"room", b"x" * 5000)[:-3],
    "r1.1.cm9vbQ==.00112233445566778899aabbccddeeff",
    "q1.pg_sleep.cm9vbQ==.00112233445566778899aabbccddeeff",
    "a1.1.1000000.00112233445566778899aabbccddeeff",
    "a'); DROP TABLE dwebsocket_message; --",
    "🦀" * 1000,
]


def test_other_texts_are_ignored(nodes: Nodes, notify: Callable[[Node, str], None]) -> None:
    """Whatever is in them; and the next message comes as always."""
    node = nodes()
    node("join", "room")
    for text in OTHER_TEXTS:
        notify(node, text)
        node("send", "room", f"behind {text[:12]}")
        assert node("take_all", 1) == [f"behind {text[:12]}"]
        assert node("count", "room") == 1
        assert node("log") == []


def test_message_of_another_group(nodes: Nodes, notify: Callable[[Node, str], None]) -> None:
    """The seal covers the group's name: who reads a message cannot send it to others."""
    node = nodes()
    node("join", "room", "admins")
    sealed = base64.b64decode(node("seal", "room", "for the room"))
    notify(node, "mx." + packed(b"admins", sealed))
    notify(node, "my." + packed(b"room", sealed))
    assert node("take_all", 1) == ["for the room"]


def memory_mib(node: Node) -> int:
    """Return the most memory that a process has had."""
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def test_row_that_others_have_changed(nodes: Nodes) -> None:
    """Is not delivered; members are told that they may have missed something."""
    node, admin = nodes(), nodes()
    node("join", "room")
    admin("ask", "DELETE FROM dwebsocket_message")
    changes = [
        "UPDATE dwebsocket_message SET content = 'x'",
        # Longer than any message: it does not even come.
        "UPDATE dwebsocket_message SET content = repeat('x', 200000000)",
        "DELETE FROM dwebsocket_message",
    ]
    before = memory_mib(node)
    for number, change in enumerate(changes, 1):
        # Changed in the publisher's transaction, so before anybody reads it.
        admin("ask", "BEGIN")
        admin("send_large", "room", 10_000)
        admin("ask", change)
        admin("ask", "COMMIT")
        eventually(lambda number=number: len(node("reports")) == number)
    admin("send", "room", "hi")
    assert node("take_all", 1) == ["hi"]
    assert node("reports") == [["interrupted", ["room"]]] * 3
    *changed, deleted = node("log")
    assert all("it was changed" in line for line in changed)
    assert "it is not there" in deleted
    assert memory_mib(node) < before + 100


def test_channel_is_not_shown(nodes: Nodes) -> None:
    """What every user of the server sees does not tell where to listen."""
    node = nodes()
    node("join", "room")
    channel = node("channel")
    shown = node("ask", "SELECT application_name, datname, usename::text FROM pg_stat_activity")
    assert channel.removeprefix("dwebsocket_") not in str(shown)


def test_process_ends_as_always(folder: Path) -> None:
    """At once and without a word, although a thread listens."""
    code = f"""
import django
from django.conf import settings
settings.configure(SECRET_KEY="secret", DATABASES={{"default": {{
    "ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "postgres",
    "HOST": {str(folder)!r}}}}},
    WEBSOCKET_GROUPS={{"default": {{"BACKEND": "dwebsocket.groups.postgres", "TIMEOUT": 20}}}})
django.setup()
from dwebsocket import group
group("room").send("hi")
print(group("room").count())
"""
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0\n", "")

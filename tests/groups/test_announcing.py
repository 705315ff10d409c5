"""Announcing sign-outs over a backend that waits for a server: one queue and one thread."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket import _core, close_user
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import backends, reports
from dwebsocket.users import announcements
from dwebsocket.users.announcements import announce
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from memory_backend import Switchboard

GROUP = "dwebsocket.sign-outs"


class Silent:
    """A server that does not answer for a while, and what it has got."""

    def __init__(self, board: Switchboard, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = threading.Event()
        self.sent: list[dict[str, list[str]]] = []
        self.closed: list[str] = []
        backend = backends.backend("default")

        def send(name: str, message: str, exclude: list[bytes]) -> None:
            assert name == GROUP
            self.sent.append(json.loads(message))
            assert self.answers.wait(60)

        monkeypatch.setattr(backend, "send", send)
        monkeypatch.setattr(backend, "close", lambda name, *_: self.closed.append(name))

    @property
    def users(self) -> list[str]:
        """Everybody who was announced."""
        return [user for each in self.sent for user in each.get("users", ())]


@pytest.fixture
def silent(switchboard: Switchboard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Silent]:
    """One of these, which answers in the end."""
    made = Silent(switchboard, monkeypatch)
    yield made
    made.answers.set()
    eventually(lambda: not threads(), what="the thread has ended")


def threads() -> list[threading.Thread]:
    """Give those that announce."""
    return [each for each in threading.enumerate() if each.name == "dwebsocket-announce"]


def test_one_thread(silent: Silent) -> None:
    """However many users are saved while the server does not answer; each is announced."""
    users = [str(number) for number in range(600)]
    for user in users:
        announce(("users", user))
    close_user("banned")
    eventually(lambda: silent.sent, what="the first one is sent")
    assert len(threads()) == 1
    silent.answers.set()
    eventually(lambda: silent.closed, what="all others are sent")
    assert silent.users == users
    assert silent.closed == ["dwebsocket.user:banned"]
    eventually(lambda: "closes" in silent.sent[-1], what="other processes hear of it, too")
    assert silent.sent.pop() == {"closes": [["banned", 4401, "signed out", 0]]}
    # What has waited leaves together, in parts that every backend takes.
    assert len(silent.sent) <= 14
    assert max(len(json.dumps(each)) for each in silent.sent) < 4000


def test_same_change_again(silent: Silent) -> None:
    """Is announced once, as long as it waits."""
    announce(("users", "first"))
    eventually(lambda: silent.sent, what="the first one is sent")
    for _ in range(20):
        announce(("users", "7"))
        announce(("sessions", "s"))
    silent.answers.set()
    eventually(lambda: not threads(), what="the thread has ended")
    assert silent.sent[1:] == [{"users": ["7"], "sessions": ["s"]}]


def test_backend_that_fails(
    switchboard: Switchboard, request_log: Callable[..., list[object]]
) -> None:
    """Is logged; whoever has saved the user gets no exception, and later ones are announced."""
    switchboard.broken.add(GROUP)
    announce(("users", "7"))
    eventually(lambda: request_log("dwebsocket"), what="it is logged")
    eventually(lambda: not threads(), what="the thread has ended")
    switchboard.broken.clear()
    announce(("users", "8"))
    eventually(lambda: switchboard.names("publish") == [GROUP, GROUP], what="it is sent")
    eventually(lambda: not threads(), what="the thread has ended")


@pytest.mark.usefixtures("switchboard")
def test_backend_that_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Gets what it could not take, and which users' WebSockets were closed lately.

    The process answers when others ask for that.
    """

    backend = backends.backend("default")
    monkeypatch.setattr(announcements, "_lately", deque())
    sent: list[dict[str, Any]] = []

    def refuse(*_: object) -> None:
        raise GroupUnavailable("away")

    def send(name: str, message: str, exclude: list[bytes]) -> None:
        sent.append(json.loads(message))

    with monkeypatch.context() as patch:
        patch.setattr(backend, "send", refuse)
        patch.setattr(backend, "close", refuse)
        announce(("users", "7"))
        close_user("banned", code=4000, reason="bye")
        eventually(lambda: not threads(), what="the thread has ended")
    monkeypatch.setattr(backend, "send", send)
    reports.report(backend, "regained", ["server"])
    eventually(lambda: len(sent) == 2, what="both are sent")
    hints, closes = sent
    assert hints == {"users": ["7"]}
    ((user, code, reason, age),) = closes["closes"]
    assert (user, code, reason) == ("banned", 4000, "bye")
    assert 0 < age < 60
    announcements.repeat()
    eventually(lambda: len(sent) == 3, what="it is sent again")
    assert sent[-1]["closes"][0][:3] == ["banned", 4000, "bye"]
    _core.step_clock(601)
    reports.report(backend, "interrupted", [GROUP])
    announcements.ask()
    eventually(lambda: len(sent) == 4, what="it asks")
    assert sent[-1] == {"asks": True}
    eventually(lambda: not threads(), what="the thread has ended")


def test_many_that_ask(silent: Silent, monkeypatch: pytest.MonkeyPatch) -> None:
    """All hear one answer to what one has called: they ask at once, when the server is back."""
    monkeypatch.setattr(announcements, "_lately", deque())
    announce(("users", "first"))
    eventually(lambda: silent.sent, what="the first one is sent")
    close_user("banned")
    for _ in range(20):
        announcements.repeat()
    silent.answers.set()
    eventually(lambda: not threads(), what="the thread has ended")
    assert [list(each) for each in silent.sent] == [["users"], ["closes"], ["closes"]]


def test_database_that_cannot_be_left(
    silent: Silent, monkeypatch: pytest.MonkeyPatch, request_log: Callable[..., list[Any]]
) -> None:
    """Is logged, and later sign-outs are announced."""

    def fail() -> None:
        raise OSError("broken")

    silent.answers.set()
    with monkeypatch.context() as patch:
        patch.setattr(announcements.database, "release_idle", fail)
        announce(("users", "7"))
        eventually(lambda: request_log("dwebsocket"), what="it is logged")
        eventually(lambda: not threads(), what="the thread has ended")
    announce(("users", "8"))
    eventually(lambda: silent.users == ["7", "8"], what="both are sent")


def test_no_thread(silent: Silent, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system gives none: the next announcement takes this one along."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(announcements.unpatched, "start_thread", refuse)
        announce(("users", "7"))
    silent.answers.set()
    announce(("users", "8"))
    eventually(lambda: silent.users == ["7", "8"], what="both are sent")


COMMAND = """
import sys, time
sys.path[:0] = sys.argv[1:]
from django.conf import settings
settings.configure(SECRET_KEY="x", WEBSOCKET_GROUPS={"default": {"BACKEND": "slow_backend"}})
from dwebsocket.users.announcements import announce
announce(("users", "7"))
announce(("users", "8"))
"""
BACKEND = """
import time
from dwebsocket.groups import Backend as Base
class Backend(Base):
    def send(self, name, message, exclude):
        time.sleep(0.3)
        print(message, flush=True)
"""


def test_end_of_a_command(tmp_path: Path) -> None:
    """Waits until the server has them: `manage.py changepassword` ends at once."""
    (tmp_path / "slow_backend.py").write_text(BACKEND)
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    sent = [json.loads(line)["users"] for line in done.stdout.splitlines()]
    assert [user for users in sent for user in users] == ["7", "8"]
    assert done.stderr == ""

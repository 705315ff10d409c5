"""Projects combine the things that the other scenarios do one by one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from support.waiting import eventually

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection
    from wild_subject import Subject


def receive(client: ClientConnection, wanted: str) -> None:
    """Receive until the wanted message comes, past the heartbeats."""
    eventually(lambda: client.recv(20) == wanted, 60, f"{wanted!r} comes")


def test_pod_console(subject: Subject) -> None:
    """The REST framework, a pump, a registry by `str`, and the database after the None."""
    closed = {"open": 0, "online": False}
    with subject.scenario():
        for text in ("ls", "top"):
            with subject.client("/pod-console/eve/") as page:
                page.send(text)
                assert page.recv(20) == f"{text}\n"
                assert subject.get("/pod-console/eve/").json() == {"open": 1, "online": True}
            eventually(lambda: subject.get("/pod-console/eve/").json() == closed, 60)


def test_reader_thread_and_push_until_send_fails(subject: Subject) -> None:
    """Neither the pushing view nor the reading thread notifies the other; both end."""
    with subject.scenario(), subject.client("/watch/") as page:
        for number in range(5):
            assert page.recv(20) == str(number)
        page.send("ignored")


def test_game(subject: Subject) -> None:
    """Views tick for all players by `wait(timeout=…)` and remove those that are closed."""
    with subject.scenario():
        with subject.client("/game/ada/") as ada:
            with subject.client("/game/bob/") as bob:
                both = {"players": ["ada", "bob"]}
                eventually(lambda: subject.get("/game/x/").json() == both, 60)
                bob.send(json.dumps([1, 2]))
                for client in (ada, bob):
                    receive(client, json.dumps({"move": [1, 2], "by": "bob"}))
            eventually(lambda: subject.get("/game/x/").json() == {"players": ["ada"]}, 60)
            ada.send(json.dumps([3, 4]))
            receive(ada, json.dumps({"move": [3, 4], "by": "ada"}))
        eventually(lambda: subject.get("/game/x/").json() == {"players": []}, 60)


def test_tabs_with_heartbeats_by_own_middleware(subject: Subject) -> None:
    """Own middleware, several tabs a user by `str`, heartbeats by threads, pushes from pages."""
    with subject.scenario():
        with subject.client("/own/room/ada/") as one:
            with subject.client("/own/room/ada/") as two:
                for client in (one, two):
                    receive(client, "")
                subject.get("/own/room/ada/?text=news")
                for client in (one, two):
                    receive(client, "news")
                two.send("said")
                for client in (one, two):
                    receive(client, "said")
            eventually(lambda: subject.get("/own/room/ada/?text=more").body == b"1", 60)
            receive(one, "more")
        eventually(lambda: subject.get("/own/room/ada/?text=late").body == b"0", 60)

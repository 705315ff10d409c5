"""Projects clean up when None comes: the last thing that a connection gives."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed

from support.raw_peer import RawPeer
from support.waiting import eventually

if TYPE_CHECKING:
    from wild_subject import Subject


def test_iteration_ends_with_none(subject: Subject) -> None:
    """A chat removes a user and sends that to the others when iteration gives the final None."""
    with subject.scenario(), subject.client("/chat/ada/") as ada:
        with subject.client("/chat/bob/") as bob:
            eventually(lambda: len(subject.get("/chat/x/").json()["names"]) == 2)
            bob.send(json.dumps({"text": "hi"}))
            for client in (ada, bob):
                assert json.loads(client.recv(20)) == {"name": "bob", "text": "hi"}
        assert json.loads(ada.recv(20)) == {"left": "bob"}
        assert subject.get("/chat/x/").json() == {"names": ["ada"]}
        with subject.client("/chat/bob/") as bob:
            ada.send(json.dumps({"text": "again"}))
            assert json.loads(ada.recv(20)) == {"name": "ada", "text": "again"}
        assert json.loads(ada.recv(20)) == {"left": "bob"}


def test_reloaded_page_finds_its_place_free(subject: Subject) -> None:
    """A view that refuses a name twice has freed it by the None when the page comes back."""
    with subject.scenario():
        for _ in range(3):
            with subject.client("/seat/ada/") as page:
                assert page.recv(20) == "seated"
                page.send("hi")
                assert page.recv(20) == "hi"
            eventually(lambda: not subject.running(), 60, "the page's view has ended")


def test_list_is_cleaned_after_wait(subject: Subject) -> None:
    """A chat with a list and a lock forgets those who close and those who vanish."""
    with subject.scenario(), contextlib.ExitStack() as stack:
        stay = [stack.enter_context(subject.client("/room/")) for _ in range(3)]
        vanish = stack.enter_context(RawPeer.open_many(subject.server, "/room/", 3))
        eventually(lambda: subject.get("/room/").json()["count"] == 6)
        stay[0].send("one")
        assert [client.recv(20) for client in stay] == ["one"] * 3
        assert [peer.read_message() for peer in vanish] == [b"one"] * 3
        vanish[0].vanish()
        vanish[1].close()
        vanish[2].send_close(1001)
        eventually(lambda: subject.get("/room/").json()["count"] == 3, 60, "three have left")
        stay[0].send("two")
        assert [client.recv(20) for client in stay] == ["two"] * 3


def test_user_goes_offline_in_the_database(subject: Subject) -> None:
    """The view writes to the database after the None."""
    with subject.scenario():
        for _ in range(2):
            with subject.client("/presence/ada/") as page:
                assert page.recv(20) == "welcome"
                assert subject.get("/presence/ada/").json() == {"online": True}
                page.send("hi")
                assert page.recv(20) == "hi"
            eventually(lambda: not subject.get("/presence/ada/").json()["online"], 60)


def test_none_is_taken_for_json(subject: Subject) -> None:
    """A view that calls `json.loads` on the None cleans up by `finally`."""
    with subject.scenario():
        with subject.client("/careless/") as page:
            page.send(json.dumps({"numbers": [1, 2, 3]}))
            assert json.loads(page.recv(20)) == {"sum": 6}
        eventually(lambda: subject.get("/careless/").json()["count"] == 0, 60)


def test_none_is_decoded(subject: Subject) -> None:
    """A view that decodes whatever `wait()` gives ends with the connection."""
    with subject.scenario(), subject.client("/decoder/") as page:
        page.send("hi")
        assert page.recv(20) == "HI"


def test_new_page_closes_the_old_one(subject: Subject) -> None:
    """The view of a new page closes the connection of another view, which ends."""
    with subject.scenario():
        with subject.client("/single-login/ada/") as old:
            assert old.recv(20) == "hello"
            with subject.client("/single-login/ada/") as new:
                assert new.recv(20) == "hello"
                assert old.recv(20) == "signed in elsewhere"
                with pytest.raises(ConnectionClosed):
                    old.recv(20)
                new.send("mine")
                assert new.recv(20) == "mine"
                assert subject.get("/screens/").json() == {"names": ["ada"]}
        eventually(lambda: subject.get("/screens/").json() == {"names": []}, 60)

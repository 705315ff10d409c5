"""Projects clean up when None comes: the last thing that a connection gives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from support.waiting import eventually

if TYPE_CHECKING:
    from subject import Subject


def test_iteration_ends_with_none(subject: Subject) -> None:
    """A chat removes a user and tells the others when iteration gives the final None."""
    with subject.scenario(), subject.client("/chat/ada/") as ada:
        with subject.client("/chat/bob/") as bob:
            eventually(lambda: len(subject.get("/chat/x/").json()["names"]) == 2)
            bob.send(json.dumps({"text": "hi"}))
            for client in (ada, bob):
                assert json.loads(client.recv(10)) == {"name": "bob", "text": "hi"}
        assert json.loads(ada.recv(10)) == {"left": "bob"}
        assert subject.get("/chat/x/").json() == {"names": ["ada"]}
        with subject.client("/chat/bob/") as bob:
            ada.send(json.dumps({"text": "again"}))
            assert json.loads(ada.recv(10)) == {"name": "ada", "text": "again"}
        assert json.loads(ada.recv(10)) == {"left": "bob"}

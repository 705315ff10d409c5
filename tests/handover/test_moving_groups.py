"""Groups of connections that move: each message reaches each member once, whoever sends it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest

from handover.conversations import Crowd, rounds
from handover.test_gunicorn import SETTINGS, SLACK_S, TWO, assert_calm, reload
from support.server import GUNICORN_GTHREAD, Server
from support.waiting import eventually

Own = Callable[..., Server]

# Between two requests: four publishers without any would take the processors from what moves.
PAUSE_S = 0.02
LOCAL = {**SETTINGS, "WEBSOCKET_GROUPS": {}}


class Publisher:
    """
    Publishes numbers by requests, which reach any worker, one after the other.

    A text has the name, a point, and the number. The texts of one name are in order.
    """

    def __init__(self, server: Server, name: str, target: str) -> None:
        self._server, self._name, self._target = server, name, target
        self.published: list[str] = []
        #: The processes that have published them.
        self.processes: dict[str, bytes] = {}
        self._has_to_stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        name, number = self._name, 0
        while not self._has_to_stop.wait(PAUSE_S):
            number += 1
            text = f"{name}.{number}"
            if self._publish(text):
                self.published.append(text)
            else:
                # The message without an answer may still be published, even after the next one.
                name = f"{self._name}-from-{number}"

    def _publish(self, text: str) -> bool:
        """Whether it was published for sure: a worker that ends may not answer."""
        try:
            answer = self._server.get(f"/publish/?{self._target}&text={text}")
        except OSError:
            return False
        self.processes[text] = answer.body
        return answer.status == 200

    def stop(self) -> list[str]:
        """Stop, and return what was published for sure."""
        self._has_to_stop.set()
        self._thread.join()
        return self.published


@pytest.mark.extended("many reloads under load")
@pytest.mark.parametrize("backend", ["local", "process"])
def test_each_message_reaches_each_member_once(
    backend: str, own_server: Own, request: pytest.FixtureRequest
) -> None:
    """While workers are replaced, and four publishers go on publishing."""
    path = f"dwebsocket.groups.{backend}"
    groups = {"default": {"BACKEND": path}}
    workers = TWO if backend == "local" else ()
    settings = {**SETTINGS, "WEBSOCKET_GROUPS": groups}
    server = own_server(GUNICORN_GTHREAD, options=workers, settings=settings)
    with Crowd(server, 12, "/grouped/", "/async-grouped/") as crowd:
        eventually(lambda: crowd.all(lambda each: each.answered > 0), SLACK_S, "all are members")
        publishers = [Publisher(server, str(number), "group=all") for number in range(4)]
        for number in rounds(request, 5, 2):
            reload(server)
            eventually(
                lambda number=number: crowd.all(lambda each: each.resumed >= number),
                SLACK_S,
                "all were resumed",
            )
        published = [text for each in publishers for text in each.stop()]
        assert len(published) > 50
        if backend == "local":
            eventually(
                lambda: crowd.all(lambda each: set(published) <= set(each.heard)),
                SLACK_S,
                "all have heard all",
            )
        assert crowd.ends() == {None}
        for each in crowd.conversations:
            assert max(Counter(each.heard).values()) == 1
    assert_calm(server)


def test_users_are_reached_before_and_after(own_server: Own) -> None:
    """The group of a user moves with the connection, whose handler knows the user."""
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=LOCAL)
    cookies = server.get("/sign-in/?name=ada").cookies()
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    with Crowd(server, 4, "/counting/", "/async-counting/", Cookie=cookie) as crowd:
        publisher = Publisher(server, "ada", "user=ada")
        for number in range(1, 3):
            reload(server)
            eventually(
                lambda number=number: crowd.all(lambda each: each.resumed >= number),
                SLACK_S,
                "all were resumed",
            )
        published = publisher.stop()
        eventually(
            lambda: crowd.all(lambda each: set(published) <= set(each.heard)),
            SLACK_S,
            "all have heard all",
        )
        assert all(max(Counter(each.heard).values()) == 1 for each in crowd.conversations)
        assert crowd.ends() == {None}
    assert_calm(server)

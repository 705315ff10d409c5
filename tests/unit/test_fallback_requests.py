"""POSTs and polls of the fallback as requests: ids, bodies, and what clients are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.test import RequestFactory

from dwebsocket import clock
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.handshake import fallback, forwarding, posting
from dwebsocket.testing import websockets_of_a_test

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpResponse

FACTORY = RequestFactory()


@pytest.fixture(autouse=True)
def _groups_of_a_test() -> Iterator[None]:
    with websockets_of_a_test():
        yield


def new_id() -> str:
    """Give an id whose connection is not there."""
    return posting.address(FACTORY.get("/chat/"))[1]


def post(body: bytes, name: str | None = None, **overrides: Any) -> HttpResponse:
    """Answer a POST."""
    target = f"/chat/?transport=sse&id={new_id() if name is None else name}"
    request = FACTORY.post(target, body, content_type="application/json")
    answer = fallback.answer(request, {"fallback": True, **overrides})
    assert answer is not None
    return answer


def poll(name: str) -> HttpResponse:
    """Answer a poll."""
    request = FACTORY.get(f"/chat/?transport=polling&id={name}&ack=0")
    answer = fallback.answer(request, {"fallback": True})
    assert answer is not None
    return answer


ONE = b'{"n": 1, "messages": [{"text": "hi"}]}'


class TestIds:
    """Which connection an id names."""

    def test_an_id_is_of_one_path_and_ends_after_a_day(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else a process that has ended would be asked for by old ids for ever."""
        key, name = posting.address(FACTORY.get("/chat/"))
        request = FACTORY.get(f"/chat/?id={name}")
        assert posting.key_of(request) == key
        assert posting.key_of(FACTORY.get(f"/other/?id={name}")) is None
        made = clock.wall()
        monkeypatch.setattr(clock, "wall", lambda: made + posting.LIFETIME_S - 1)
        assert posting.key_of(request) == key
        monkeypatch.setattr(clock, "wall", lambda: made + posting.LIFETIME_S + 1)
        assert posting.key_of(request) is None

    @pytest.mark.parametrize("length", [0, 1, 15, 16, 31, 35, 36, 37, 60])
    def test_no_other_bytes_are_an_id(self, length: int) -> None:
        """Of any length."""
        name = posting._encode(b"x" * length)
        assert posting.key_of(FACTORY.get(f"/chat/?id={name}")) is None


class TestOtherProcesses:
    """What a client is told when the process that has its connection does not answer."""

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (forwarding.Gone(), 410),
            (forwarding.Doubtful(), 503),
            (GroupUnavailable("away"), 503),
        ],
        ids=["gone", "doubtful", "away"],
    )
    def test_the_client_is_told_what_to_do(
        self, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
    ) -> None:
        """To connect anew, or to come again in a moment."""

        def ask(*_: Any) -> Any:
            raise error

        name = new_id()
        monkeypatch.setattr(forwarding.node(), "number", b"other.")
        monkeypatch.setattr(forwarding.node(), "ask", ask)
        monkeypatch.setattr("dwebsocket.handshake.polling._held_of", lambda request: Held())
        for response in (post(ONE, name), poll(name)):
            assert response.status_code == status
            assert response.get("Retry-After") == ("1" if status == 503 else None)


class Held:
    """A request that waits, of a server that gives its clients away."""

    def find(self) -> None:
        """Find the client."""

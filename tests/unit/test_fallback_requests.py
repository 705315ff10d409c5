"""POSTs and polls of the fallback as requests: ids, bodies, and what clients are told."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
from django.test import RequestFactory

from dwebsocket import _core, conf
from dwebsocket.compat import unpatched
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.handshake import fallback
from dwebsocket.handshake.fallback import forwarding, posting
from dwebsocket.handshake.fallback.polling import HeldResponse
from dwebsocket.telemetry import clock
from dwebsocket.testing import websockets_of_a_test

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpResponse

MIB = 1024 * 1024
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
    answer = fallback.answer(request, conf.Options.current({"fallback": True, **overrides}))
    assert answer is not None
    return answer


def poll(name: str) -> HttpResponse:
    """Answer a poll."""
    request = FACTORY.get(f"/chat/?transport=polling&id={name}&ack=0")
    answer = fallback.answer(request, conf.Options.current({"fallback": True}))
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

    def test_no_part_of_a_path_belongs_to_an_id(self) -> None:
        """A path with a NUL has in its seal what that of another path begins with."""
        _, name = posting.address(FACTORY.get("/any/%00/chat/"))
        code = base64.urlsafe_b64decode(name)
        longer = posting._encode(code[:20] + b"\0/any/" + code[20:])
        assert posting.key_of(FACTORY.get(f"/chat/?id={longer}")) is None

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
        monkeypatch.setattr(
            "dwebsocket.handshake.fallback.polling._held_of", lambda request: Held()
        )
        for response in (post(ONE, name), poll(name)):
            assert response.status_code == status
            assert response.get("Retry-After") == ("1" if status == 503 else None)

    def test_a_poll_for_another_process_waits_ten_seconds_at_most(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That may be killed meanwhile, which the next poll finds out."""
        name = new_id()
        monkeypatch.setattr(forwarding.node(), "number", b"other.")
        monkeypatch.setattr(forwarding.node(), "ask", lambda *_: "held")
        monkeypatch.setattr(
            "dwebsocket.handshake.fallback.polling._held_of", lambda request: Held()
        )
        response = poll(name)
        assert isinstance(response, HeldResponse)
        assert response._timeout == 10

    @pytest.mark.parametrize("kind", ["polling", "sse"])
    def test_without_a_thread_it_comes_again_in_a_moment(
        self, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        """The system gives none for what other processes say."""

        def refuse(*_: Any) -> None:
            raise RuntimeError("can't start new thread")

        request = FACTORY.get(f"/chat/?transport={kind}")
        options = conf.Options.current({"fallback": True})
        with monkeypatch.context() as patch:
            patch.setattr(unpatched, "start_thread", refuse)
            response = fallback.answer(request, options)
        assert response is not None
        assert (response.status_code, response["Retry-After"]) == (503, "5")
        assert fallback.answer(request, options) is None


class Held:
    """A request that waits, of a server that gives its clients away."""

    def find(self) -> None:
        """Find the client."""

    def prepare(self) -> None:
        """Make ready to take it."""


class TestBodies:
    """What the body of a POST may have."""

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (ONE, 410),
            (b'{"n": 1, "messages": [' + b",".join([b'{"text": ""}'] * 1024) + b"]}", 410),
            (b'{"n": 1, "messages": [' + b",".join([b'{"text": ""}'] * 1025) + b"]}", 413),
            (b'{"n": 1, "messages": [' + b"[]," * 50_000 + b"[]]}", 400),
            (b'{"n": 1, "messages": [], "x": ' + b"[" * 1000 + b"]" * 1000 + b"}", 413),
            (b"[" * 100_000, 400),
            (ONE[:-1], 400),
            (b"", 400),
        ],
        ids=["one", "1,024", "1,025", "of lists", "deep", "only deep", "cut", "empty"],
    )
    def test_messages(self, body: bytes, status: int) -> None:
        """Their number and depth are limited before anything is built of them."""
        assert post(body).status_code == status

    @pytest.mark.parametrize(
        ("size", "status"), [(1334 + 66 * 1024, 413), (1334 + 64 * 1024, 410), (50 * MIB, 413)]
    )
    def test_size(self, size: int, status: int) -> None:
        """A message of the largest size in base64, and 64 KiB: what is larger is not read."""
        response = post(ONE.ljust(size), max_message_size=1000)
        assert response.status_code == status
        if status == 413:
            assert response.content == b"The messages are too large.\n"

    def test_a_body_counts_among_what_the_process_buffers(self) -> None:
        """At the limit the client is told to come again."""
        # This process's node sets the limit of the settings when it is made.
        forwarding.node()
        before = _core.buffered_bytes()
        body = _core.Post(64 * MIB)
        try:
            _core.limit_buffered(before + 8 * MIB)
            found = [body.take_in(bytes(MIB)) for _ in range(8)]
            assert ("no room", "the process buffers too much") in found
            assert 0 < _core.buffered_bytes() - before <= 8 * MIB
            large = b'{"n": 1, "messages": [{"text": "' + b"x" * 4 * MIB + b'"}]}'
            response = post(large)
            assert (response.status_code, response["Retry-After"]) == (503, "1")
            assert post(ONE).status_code == 410
        finally:
            _core.limit_buffered(None)
        del body
        assert _core.buffered_bytes() == before

    def test_what_was_not_read_says_nothing(self) -> None:
        """A body that was refused neither."""
        body = _core.Post(1000)
        for use in (lambda: body.number, lambda: body.frames, lambda: body.put(bytes(16))):
            with pytest.raises(RuntimeError, match="was not taken"):
                use()
        assert body.read() == ("malformed", "it is no JSON of this form")
        for use in (lambda: body.number, body.read, lambda: body.take_in(b"")):
            with pytest.raises(RuntimeError, match="was not taken"):
                use()

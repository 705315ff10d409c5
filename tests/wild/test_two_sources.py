"""Projects serve a browser and another socket at once, by threads or by `select`."""

from __future__ import annotations

import socketserver
import threading
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed

from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wild_subject import Subject


class Shouter(socketserver.BaseRequestHandler):
    """A remote end that greets, answers in capitals, and hangs up at `bye`."""

    def handle(self) -> None:
        """Answer until the other side hangs up."""
        self.server.open += 1
        try:
            self.request.sendall(b"login:")
            while data := self.request.recv(4096):
                if data == b"bye":
                    break
                self.request.sendall(data.upper())
        finally:
            self.server.open -= 1


class Remote(socketserver.ThreadingTCPServer):
    """Counts the connections that are open."""

    daemon_threads = True
    open = 0


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A remote end that is running."""
    with Remote(("127.0.0.1", 0), Shouter) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("by", ["telnet", "select"])
class TestRemote:
    """A thread that pumps, and `select` over `protocol.sock` and the other socket."""

    def test_browser_goes_first(self, subject: Subject, remote: Remote, by: str) -> None:
        """Both directions work, and the other socket is closed when the browser goes."""
        path = f"/{by}/{remote.server_address[1]}/"
        with subject.scenario(), subject.client(path) as page:
            assert page.recv(20) == "login:"
            for text in ("one", "two", "three"):
                page.send(text)
                assert page.recv(20) == text.upper()
        eventually(lambda: remote.open == 0, 60, "the other socket is closed")

    def test_remote_end_goes_first(self, subject: Subject, remote: Remote, by: str) -> None:
        """The connection to the browser is closed when the remote end hangs up."""
        path = f"/{by}/{remote.server_address[1]}/"
        with subject.scenario(), subject.client(path) as page:
            assert page.recv(20) == "login:"
            page.send("bye")
            with pytest.raises(ConnectionClosed):
                page.recv(20)
        eventually(lambda: remote.open == 0, 60, "the other socket is closed")


def test_select_with_a_timeout(subject: Subject) -> None:
    """`select` on `protocol.sock` gives messages at once, and ticks when its time is up."""
    with subject.scenario(), subject.client("/select-with-timeout/") as page:
        assert page.recv(20) == "tick"
        page.send("one")
        page.send("two")
        for text in ("one", "two"):
            while (answer := page.recv(20)) == "tick":
                pass
            assert answer == text
        assert page.recv(20) == "tick"


def test_threads_of_both_kinds(subject: Subject) -> None:
    """One thread reads, another one pushes until `is_closed()`, the view only waits for both."""
    with subject.scenario(), subject.client("/threads-of-both-kinds/") as page:
        for text in ("one", "two"):
            page.send(text)
            assert page.recv(20) == text

"""Groups in uWSGI's processes: they publish to members of another server, and have members."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.raw_peer import RawPeer
from support.server import GUNICORN_GTHREAD, Kind, Server
from support.wsgi_kinds import UWSGI_GEVENT, UWSGI_HTTP_SOCKET, UWSGI_LAZY, UWSGI_ONE_THREAD

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.extended("concerns uWSGI only")

ROOM, PUBLISH = "/groups/room/one/", "/groups/publish/one/?message="


@pytest.mark.parametrize(
    "kind", [UWSGI_HTTP_SOCKET, UWSGI_ONE_THREAD, UWSGI_LAZY, UWSGI_GEVENT], ids=str
)
def test_pages_and_views_publish(own_server: Callable[..., Server], kind: Kind) -> None:
    """Also a process that has no connection; what one view publishes keeps its order."""
    uwsgi = own_server(kind)
    # Another server of the same project.
    gunicorn = own_server(GUNICORN_GTHREAD, env={"WEBSOCKET_RUNTIME_DIR": str(uwsgi.folder)})
    with RawPeer.open(gunicorn, ROOM) as member:
        assert member.read_message().isdigit()
        for number in range(50):
            assert uwsgi.get(f"{PUBLISH}{number}").status == 200
            assert member.read_message() == b"%d" % number
        with RawPeer.open(uwsgi, ROOM) as other:
            assert other.read_message().isdigit()
            for number in range(500):
                other.send_text(str(number))
            for peer in (member, other):
                assert [int(peer.read_message()) for _ in range(500)] == list(range(500))
            member.send_text("hello")
            assert other.read_message() == member.read_message() == b"hello"

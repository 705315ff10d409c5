"""Applications of Channels that rely on one thread for all sync code of a process."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from support.raw_peer import RawPeer, handshake_request
from support.server import CACHE, GUNICORN_GTHREAD, UVICORN, Kind, Server
from support.users import sign_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOCKPUPPET = CACHE / "sockpuppet"
PROTOCOL = Kind(
    "uvicorn-protocol",
    "asgi",
    (
        *"{python} -m uvicorn --port {port} --log-level warning --ws".split(),
        *"dwebsocket.uvicorn:WebSocketProtocol {module}.promise_asgi:application".split(),
    ),
    alone=True,
)
PAGE = '<html><body><p id="who">{{ name }}</p></body></html>'
SETTINGS: dict[str, Any] = {
    "ROOT_URLCONF": "project.promise_urls",
    "CHANNEL_LAYERS": {"default": {"BACKEND": "dwebsocket.channels.ChannelLayer"}},
    "INSTALLED_APPS": [
        *(f"django.contrib.{name}" for name in ("auth", "contenttypes", "sessions")),
        *("sockpuppet", "project"),
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {"loaders": [["django.template.loaders.locmem.Loader", {"who.html": PAGE}]]},
        }
    ],
}
# As those who measured it had them.
USERS = ("anna", "bert", "carla", "dora", "emil", "frida")
TURNS = 40
PLAYERS, PLACES, MOVES = 30, 6, 20

pytestmark = [
    pytest.mark.every("real applications of Channels, under load"),
    pytest.mark.skipif(not SOCKPUPPET.is_dir(), reason="EVERY=1 tests/setup installs sockpuppet"),
    pytest.mark.parametrize("kind", [PROTOCOL, UVICORN, GUNICORN_GTHREAD], ids=str),
]


@pytest.fixture
def server(kind: Kind, own_server: Callable[..., Server]) -> Server:
    """The site."""
    paths = [str(SOCKPUPPET), *filter(None, [os.environ.get("PYTHONPATH")])]
    return own_server(kind, settings=SETTINGS, env={"PYTHONPATH": os.pathsep.join(paths)})


def at_once(calls: list[Callable[[], object]]) -> None:
    """Make the calls at the same time; raise what one of them raises."""
    errors: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


REFLEX = {
    "target": "WhoReflex#show",
    "selectors": ["#who"],
    "args": [],
    "attrs": {},
    "formData": "",
    "identifier": '{"channel":"StimulusReflex::Channel"}',
    "permanentAttributeName": "data-reflex-permanent",
}


def test_each_user_gets_the_own_page(server: Server) -> None:
    """Six users of django-sockpuppet, which renders pages by a patch of the view's class."""
    got: dict[str, list[str]] = {name: [] for name in USERS}
    reflex = json.dumps({**REFLEX, "url": server.url("/page/", "http")})

    def use(name: str, peer: RawPeer) -> None:
        for _ in range(TURNS):
            peer.send_text(reflex)
            answer = json.loads(peer.read_message())
            got[name] += [each["html"] for each in answer["operations"]["morph"]]

    with contextlib.ExitStack() as stack:
        calls = []
        for name in USERS:
            headers = {**sign_in(server, name), "Origin": server.url("", "http").rstrip("/")}
            peer = stack.enter_context(RawPeer.open(server, "/ws/sockpuppet-sync", headers=headers))
            calls.append(lambda name=name, peer=peer: use(name, peer))
        at_once(calls)
    for name in USERS:
        assert len(got[name]) == TURNS
        assert all(name in html for html in got[name]), (name, got[name])


@contextlib.contextmanager
def players_of(server: Server, path: str) -> Iterator[list[RawPeer]]:
    """Have many clients ask for a place at the same time; give those that got one."""
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(RawPeer(server.address)) for _ in range(PLAYERS)]
        for peer in peers:
            peer.send(handshake_request(path, server.host))
        answers = {peer: peer.read_response().status for peer in peers}
        assert set(answers.values()) == {101, 403}
        yield [peer for peer, status in answers.items() if status == 101]


@pytest.mark.parametrize("path", ["/game/", "/async-game/"])
def test_game(server: Server, path: str) -> None:
    """It takes as many players as it has places, and loses none of their moves."""
    seen: list[str] = []

    def play(peer: RawPeer) -> None:
        for _ in range(MOVES):
            peer.send_text("a move")
            seen.append(peer.read_message().decode())

    with players_of(server, path) as players:
        assert len(players) == PLACES
        at_once([lambda peer=peer: play(peer) for peer in players])
    assert sorted(seen) == sorted(f"{number} {number}" for number in range(1, PLACES * MOVES + 1))

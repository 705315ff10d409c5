"""The page about WebSockets in Django's admin: who may see it, what it shows, what it closes."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from operators import LIVE, PAGE, TOKEN, Person, manage, site

from support.raw_peer import RawPeer, handshake_request
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.server import Server


CLOSE = f"{PAGE}close/"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The site, by one worker."""
    with site() as running:
        root = Person(running, "root")
        with root.websocket("/chat/first/"):
            eventually(lambda: root.sees("/chat/first/"))
        yield running


@pytest.fixture
def root(server: Server) -> Person:
    """A user with all rights."""
    return Person(server, "root")


def refusal_of(server: Server, person: Person, path: str) -> int:
    """Try to open a WebSocket; give the status that refuses it."""
    with RawPeer(server.address) as peer:
        peer.send(handshake_request(path, server.host, headers=person.headers))
        return peer.read_response().status


@pytest.mark.parametrize(
    ("name", "page"),
    [("", 302), ("anna", 302), ("outsider", 302), ("staff", 403), ("viewer", 200), ("root", 200)],
)
def test_only_users_with_the_permission_see_anything(server: Server, name: str, page: int) -> None:
    """Of the staff; others are sent to the log-in page, and their WebSocket gets 403."""
    person = Person(server, name)
    answer = person.get(PAGE)
    assert answer.status == page
    assert refusal_of(server, person, LIVE) == (101 if page == 200 else 403)
    if page != 200:
        assert b"ws-table" not in answer.body
        assert person.post(CLOSE, token=False, key="x").status in (302, 403)
    if page == 302:
        assert "/admin/login/" in (answer.header("Location") or "")


@pytest.mark.parametrize(("name", "is_there"), [("root", True), ("viewer", True), ("staff", False)])
def test_the_index_links_to_it_for_those_who_may(
    server: Server, name: str, *, is_there: bool
) -> None:
    """By the name of its model."""
    index = Person(server, name).get("/admin/").body.decode()
    assert (f'href="{PAGE}"' in index) == is_there


def test_it_speaks_the_language_of_its_reader(server: Server) -> None:
    """That of Django's cookie; the script gets its texts with the data."""
    reader = Person(server, "root")
    reader.cookies["django_language"] = "zh-hans"
    page = reader.get(PAGE).body.decode()
    for text in ("<h2>打开的 WebSocket</h2>", "个进程已回答", "<dt>已登录</dt>", "视图和路径"):
        assert text in page
    data = re.search(r'<script id="ws-data"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["texts"]["now"] == "现在"
    assert ">Search<" not in page


def test_what_clients_choose_is_escaped(root: Person) -> None:
    """The path, the program's name, and users' names; a mark that turns text around is shown."""
    script = "<script>alert(1)</script>"
    ben = Person(root.server, "ben%3Cb%3E")
    turned = quote("\u202egnp")
    with ben.websocket(f"/chat/%3Cimg%20src=x%3E{turned}/", **{"User-Agent": script}):
        eventually(lambda: root.shows("ben&lt;b&gt;"))
        page = root.get(PAGE).body.decode()
    assert script not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert r"/chat/&lt;img src=x&gt;\u202egnp/" in page
    assert "ben&lt;b&gt;" in page
    assert "ben<b>" not in page
    assert "<img" not in page


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?q=room7", ["/chat/room7/"]),
        ("?q=ANNA", ["/chat/annas/"]),
        ("?view=operated.urls.Feed", ["/feed/1/"]),
        ("?q=nothing-like-it", ["None."]),
        ("?o=-age&q=chat", ["/chat/annas/", "/chat/room7/"]),
        ("?o=__class__&p=-3&q=chat", ["/chat/room7/", "/chat/annas/"]),
    ],
)
def test_rows_are_searched_filtered_and_sorted(root: Person, query: str, found: list[str]) -> None:
    """By parameters; senseless ones are those of the first page."""
    anna = Person(root.server, "anna")
    with (
        Person(root.server).websocket("/chat/room7/"),
        anna.websocket("/chat/annas/"),
        Person(root.server).websocket("/feed/1/"),
    ):
        eventually(lambda: [row.split()[0] for row in root.rows(query)] == found)


def test_fifty_rows_are_a_page(root: Person) -> None:
    """The next page has the rest."""
    with RawPeer.open_many(root.server, "/feed/7/", 60):
        eventually(lambda: len(root.rows("?q=/feed/7/&p=2")) == 10)
        assert len(root.rows("?q=/feed/7/")) == 50
        assert root.rows("?q=/feed/7/&p=3") == ["None."]
        assert re.search(r"Page 2 of 2", root.get(f"{PAGE}?q=/feed/7/&p=2").body.decode())


def key_of(root: Person, path: str) -> str:
    """Give the id that a row's form sends."""

    def keys() -> list[str]:
        page = root.get(f"{PAGE}?q={path}").body.decode()
        return re.findall(r'name="key" value="([^"]+)"', page)

    return eventually(lambda: found if len(found := keys()) == 1 else None)[0]


def test_one_is_closed_by_a_form(root: Person) -> None:
    """With the token against forged requests, and noted in the admin's log."""
    with root.websocket("/chat/one/") as one, root.websocket("/chat/other/") as other:
        key = key_of(root, "/chat/one/")
        assert root.post(CLOSE, token=False, key=key).status == 403
        answer = root.post(CLOSE, key=key, next="?q=one")
        assert (answer.status, answer.header("Location")) == (302, f"{PAGE}?q=one")
        ending = one.read_to_eof()
        assert (ending.code, ending.frames[-1].reason) == (1008, "closed by an administrator")
        other.send_text("still here")
        assert other.read_message() == b"still here"
    log = manage(
        root.server,
        *("shell", "--verbosity", "0", "--command"),
        "from django.contrib.admin.models import LogEntry; e = LogEntry.objects.latest('pk');"
        "print(e.user.username, e.object_id, e.get_change_message())",
    )
    assert log.strip() == f"root {key} Closed 1 WebSockets with 1008."


def test_all_of_a_user_are_closed_by_a_form(root: Person) -> None:
    """And those of no other."""
    anna = Person(root.server, "anna")
    with anna.websocket("/chat/a/") as first, anna.websocket("/feed/1/") as second:
        with root.websocket("/chat/mine/") as mine:
            eventually(lambda: len(root.rows("?q=anna")) == 2)
            user = re.search(r'href="\?user=(\d+)">anna<', root.get(PAGE).body.decode())
            assert user is not None
            assert root.post(CLOSE, user=user[1]).status == 302
            assert {first.read_to_eof().code, second.read_to_eof().code} == {1008}
            mine.send_text("still here")
            assert mine.read_message() == b"still here"
    assert "2 closed." in root.get(PAGE).body.decode()


def test_who_may_only_see_closes_nothing(server: Server, root: Person) -> None:
    """There is no button, and the form is refused."""
    viewer = Person(server, "viewer")
    with root.websocket("/chat/kept/") as kept:
        key = key_of(root, "/chat/kept/")
        assert "ws-close" not in viewer.get(PAGE).body.decode()
        viewer.get("/admin/password_change/")
        assert viewer.post(CLOSE, key=key).status == 403
        kept.send_text("still here")
        assert kept.read_message() == b"still here"


@pytest.mark.parametrize("field", ["key", "user"])
def test_a_form_with_a_nul_character_is_refused(root: Person, field: str) -> None:
    """PostgreSQL could not keep it in the admin's log."""
    root.get(PAGE)
    assert root.post(CLOSE, **{field: "1\0"}).status == 400
    assert root.get(f"{PAGE}?q=a%00b").status == 200


@pytest.mark.parametrize("wanted", ["https://evil.example/", "//evil.example", "?\r\nX-Bad: 1"])
def test_the_way_back_stays_on_the_page(root: Person, wanted: str) -> None:
    """Whatever a form says."""
    root.get(PAGE)
    answer = root.post(CLOSE, key="gone", next=wanted)
    assert answer.status == 302
    assert (answer.header("Location") or "").startswith(PAGE)
    assert answer.header("X-Bad") is None


def test_its_websocket_sends_samples_and_ends_at_log_out(root: Person) -> None:
    """Each slot's, of all processes."""
    with root.websocket(LIVE) as live, root.websocket("/chat/x/"):

        def has_sample() -> bool:
            message = json.loads(live.read_message())
            return any(sample[1] >= 2 for sample in message["samples"])

        eventually(has_sample)
        root.post("/admin/logout/")
        assert live.read_to_eof().code == 4401


@pytest.mark.slow
@pytest.mark.extended("half a minute passes")
def test_its_websocket_ends_when_the_permission_is_withdrawn(server: Server) -> None:
    """Looked up every half a minute; here the user is no longer of the staff."""
    viewer = Person(server, "viewer")
    command = "User.objects.filter(username='viewer').update(is_staff={})"
    run = ("shell", "--verbosity", "0", "--command")
    head = "from django.contrib.auth.models import User; "
    with viewer.websocket(LIVE) as live:
        manage(server, *run, head + command.format(False))
        try:
            ending = live.read_to_eof()
        finally:
            manage(server, *run, head + command.format(True))
    assert ending.code == 1008


def test_connections_that_moved_are_counted(server: Server, root: Person) -> None:
    """Those that came from the worker before this one."""
    with root.websocket("/lasting/") as moving:
        eventually(lambda: root.sees("/lasting/"))
        assert moves(root) == [0, 0, 0]
        server.send_signal(signal.SIGHUP)
        assert moving.read_message() == b"moved"
        eventually(lambda: moves(root) == [1, 0, 0])


def moves(root: Person) -> list[int]:
    """Give how many connections came, went, and were taken by none, as the page says."""
    page = root.get(PAGE).body.decode()
    table = page.partition("<h2>Handed over</h2>")[2].partition("</table>")[0]
    return [int(number) for number in re.findall(r">(\d+)</td>", table)]


def test_metrics_are_for_the_token_or_the_permission(server: Server, root: Person) -> None:
    """Also a superuser has it."""
    assert Person(server, "anna").get("/metrics").status == 403
    assert root.get("/metrics").status == 200
    answer = server.get("/metrics", {"Authorization": f"Bearer {TOKEN}"})
    assert b"dwebsocket_open{" in answer.body or b"# TYPE dwebsocket_open gauge" in answer.body


def test_dumpdata_and_migrations_know_the_model_without_a_table(server: Server) -> None:
    """It has permissions, and nothing to store."""
    assert json.loads(manage(server, "dumpdata", "dwebsocket", "--all")) == []
    assert "No changes" in manage(server, "makemigrations", "--check", "--dry-run", "dwebsocket")

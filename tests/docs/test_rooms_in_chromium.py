"""The page's side of docs/rooms.md: its project of five minutes, and its JavaScript."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.browser import chromium
from support.pages import block
from support.server import RUNSERVER, Server
from support.start_page import add_room, make
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver import Chrome

pytestmark = pytest.mark.needs("chromium")

PAGE = "docs/rooms.md"
# The rooms of all recipes.
ROOMS = """
from django.http import Http404
from dwebsocket.rooms import Room, rooms

class Any(Room):
    name = "<slug:name>"
    presence = True
    events = ["typing"]

    def allow(self):
        if self.name.startswith("note-"):
            raise Http404
        return True

    def info(self):
        return {"name": self.request.GET["name"]}

    def receive(self, event, data):
        if event == "say":
            self.group.send_json(data)
            return len(data["text"]) if "text" in data else None
        if event == "publish":
            self.group.send(data)
        if event == "evict":
            self.group.evict(data, "You were banned.")

live = rooms(Any)
"""
URLS = """
from chat import recipes
urlpatterns += [path("recipes/", recipes.live)]
"""
# Blocks run as they stand: `shown` has what they show. `peer` is another connection.
RUN = """
const [code, done] = arguments;
window.shown = [];
const show = (text) => shown.push(text);
const AsyncFunction = (async () => {}).constructor;
import("/static/dwebsocket/dwebsocket.js").then(async ({ connect }) => {
  const [live, peer] = ["Anna", "Ben"].map((name) => connect(`/recipes/?name=${name}`));
  window.peer = peer;
  await Promise.all([live, peer].map((each) =>
    new Promise((open) => each.on("state", (state) => state === "open" && open()))));
  await new AsyncFunction("live", "show", code)(live, show);
  // The server takes what one page asks for in its order: then this one is in its rooms.
  const last = live.join("the-last");
  await new Promise((joined) => last.on("state", (state) => state === "joined" && joined()));
}).then(() => done(""), (error) => done(String(error)));
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The project of the two pages, and the rooms of the recipes."""
    folder = tmp_path_factory.mktemp("site")
    make(folder)
    add_room(folder)
    (folder / "chat" / "recipes.py").write_text(ROOMS)
    with (folder / "mysite" / "urls.py").open("a") as file:
        file.write(URLS)
    with Server(RUNSERVER, cwd=folder, module="mysite") as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        driver.set_script_timeout(60)
        yield driver


@pytest.fixture
def run(site: Server, browser: Chrome) -> Callable[[str], None]:
    """Run the block of JavaScript that contains a text, on the page of the room."""

    def run_block(part: str) -> None:
        browser.get(site.url("/lobby/recipes/?name=Page", "http"))
        assert browser.execute_async_script(RUN, block(PAGE, part, "js")) == ""

    return run_block


def test_five_minutes(site: Server, browser: Chrome) -> None:
    """Two windows see each other, what is said, and that one has gone."""

    def shows(name: str, text: str) -> None:
        element = browser.find_element("id", name)
        eventually(lambda: element.text == text, 60, f"{name} is {text}")

    first = browser.current_window_handle
    browser.get(site.url("/lobby/tea/?name=Anna", "http"))
    shows("state", "joined")
    browser.switch_to.new_window("window")
    browser.get(site.url("/lobby/tea/?name=Ben", "http"))
    shows("members", "Anna, Ben")
    browser.find_element("id", "message").send_keys("hello\n")
    shows("messages", "hello")
    browser.close()
    browser.switch_to.window(first)
    shows("messages", "hello")
    shows("members", "Anna")


def test_api(run: Callable[[str], None], browser: Chrome) -> None:
    """What is said, its acknowledgement, and who comes."""
    run('mood: "good"')
    # The event goes by the group, the acknowledgement does not: either may be first.
    shown = "return shown.map(String).sort()"
    eventually(lambda: browser.execute_script(shown) == ["2", "hi at null", "joined "])
    browser.execute_script("peer.join('room-42')")
    eventually(lambda: "Ben is here" in browser.execute_script("return shown"))


TYPES = "document.querySelector('#message').dispatchEvent(new Event('input'))"
# Of a block the text by which it is found, what the peer does, and what is shown then.
RECIPES: list[tuple[str, str, list[Any]]] = [
    ("chat.on(", "peer.join('room-42').emit('typing', true)", ["Ben is typing"]),
    (
        "chat.on(",
        "const room = peer.join('room-42'); room.on('typing', (is) => shown.push(is));"
        f"room.on('state', (state) => state === 'joined' && {TYPES})",
        [True, False],
    ),
    (
        "row.update(",
        "peer.join('order-7').update({field: 'total'})",
        ["Anna: looks, Ben: total"],
    ),
    ("There is no such note", "", ["There is no such note."]),
    (
        'live.join("bell")',
        "peer.join('bell').emit('say', {unread: 3}); peer.join('room-7').emit('say', {text: 'hi'})",
        ["3 unread", "hi"],
    ),
    (
        "moderated.on(",
        "window.room = peer.join('room-13'); room.on('state', () => room.emit('evict', "
        "room.members.find(({info}) => info.name === 'Anna').connections[0].id))",
        ["evicted: You were banned."],
    ),
    ("machine-${name}", "peer.join('machine-oven').emit('publish', 'hot')", ["oven: hot"]),
]


@pytest.mark.parametrize(("part", "script", "expected"), RECIPES)
def test_recipes(
    run: Callable[[str], None], browser: Chrome, part: str, script: str, expected: list[Any]
) -> None:
    """What the peer does is shown."""
    run(part)
    browser.execute_script(script)
    eventually(lambda: browser.execute_script("return shown")[-len(expected) :] == expected, 60)

"""The small projects in examples/: each does in a browser what its README says."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dwebsocket import connect
from support.browser import chromium
from support.relay import Relay
from support.selection import later
from support.server import ROOT, Kind, Server, children_of, command_line
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver import Chrome

    Start = Callable[..., Server]

pytestmark = pytest.mark.needs("chromium")

NAMES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/manage.py"))
#: Where the pictures of docs/examples.md are written to, by PICTURES=docs/examples.
PICTURES = os.environ.get("PICTURES")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts a copy of an example, by the command of its README."""
    with contextlib.ExitStack() as stack:

        def started(name: str, *, reloads: bool = False) -> Server:
            folder = tmp_path / "examples"
            left_out = shutil.ignore_patterns("*.sqlite3", "*.log", "queue", "__pycache__")
            shutil.copytree(ROOT / "examples", folder, ignore=left_out)
            port = ("--port", "{port}") if name == "fastapi_beside" else ("--noreload", "{port}")
            if reloads:
                port = ("{port}",)
            command = Kind(name, "run.py", ("{python}", "../run.py", name, *port))
            module = "demo" if name == "chat" else name
            server = Server(command, cwd=folder / name, module=module, probe="/")
            return stack.enter_context(server)

        yield started


def manage(server: Server, *arguments: str) -> None:
    """Run a command of the project, with the server's environment."""
    command = [sys.executable, "manage.py", *arguments]
    subprocess.run(command, cwd=server.cwd, env=server.env, check=True)


def shell(server: Server, code: str) -> None:
    """Run code in another process of the project."""
    manage(server, "shell", "-c", code)


def text_of(browser: Chrome, name: str) -> str:
    """Give the text of an element."""
    return browser.find_element("id", name).text


def take_picture(browser: Chrome, name: str) -> None:
    """Write a picture for the docs, when they are wanted. Needs pillow, as examples/film.py."""
    if PICTURES:
        from PIL import Image

        Path(PICTURES).mkdir(exist_ok=True)
        # Without the bar of the window beside it.
        bar = "document.documentElement.style.scrollbarWidth = arguments[0]"
        browser.execute_script(bar, "none")
        picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
        picture.quantize(96, dither=Image.Dither.NONE).save(
            Path(PICTURES) / f"{name}.png", optimize=True
        )
        browser.execute_script(bar, "")


@contextlib.contextmanager
def two_tabs(browser: Chrome, address: str) -> Iterator[tuple[str, str]]:
    """Open an address in the tab that is there and in a new one, which is the current one then."""
    first = browser.current_window_handle
    browser.get(address)
    browser.switch_to.new_window("tab")
    second = browser.current_window_handle
    browser.get(address)
    try:
        yield first, second
    finally:
        browser.switch_to.window(second)
        browser.close()
        browser.switch_to.window(first)


@pytest.fixture
def look(browser: Chrome) -> Iterator[Callable[[int, str], None]]:
    """Give a function that sets the width of the page, and light or dark."""

    def looked(width: int, scheme: str) -> None:
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    yield looked
    browser.get("about:blank")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


# How bright text and ground are, and by how much the page is wider than its window.
SEEN = """
const bright = (colour) =>
  colour.match(/[\\d.]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 765;
const { color, backgroundColor } = getComputedStyle(document.body);
return [bright(color), bright(backgroundColor), document.documentElement.scrollWidth - innerWidth];
"""


@pytest.mark.parametrize(
    "name", ["tutorials", *later(*(each for each in NAMES if each != "tutorials"))]
)
def test_each_is_one_command_and_a_page(
    start: Start, browser: Chrome, look: Callable[[int, str], None], name: str
) -> None:
    """On desktops and phones, light and dark; Ctrl-C ends all that the command has started."""
    server = start(name)
    # The messages of another test's page.
    browser.get("about:blank")
    browser.get_log("browser")
    for width in (1180, 360):
        for scheme in ("light", "dark"):
            look(width, scheme)
            browser.get(server.url("/", "http"))
            text, ground, over = browser.execute_script(SEEN)
            assert (text > ground) == (scheme == "dark"), (width, scheme)
            assert abs(text - ground) > 0.5, (width, scheme)
            assert over <= 0, (width, scheme)
    if name in ("chat", "tutorials"):
        # The tests below take pictures of the others, and those of the recipes one of the terminal.
        look(900, "light")
        browser.get(server.url("/", "http"))
        take_picture(browser, name)
    # Before the server ends, which a page would complain about.
    browser.get("about:blank")
    assert browser.get_log("browser") == []
    os.killpg(server.process.pid, signal.SIGINT)
    assert server.wait(60) == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(server.process.pid, 0)


@pytest.mark.every("the parts of it are tested one by one")
def test_dashboard_follows_the_model(start: Start, browser: Chrome) -> None:
    """Whichever process changes an order; after a rollback nothing is shown."""
    server = start("dashboard")
    browser.get(server.url("/", "http"))
    # By the command in another process, which would go on with these orders, too.
    eventually(lambda: text_of(browser, "sum") == "5")
    (simulate,) = (
        each for each in children_of(server.process.pid) if "simulate" in command_line(each)
    )
    os.kill(simulate, signal.SIGTERM)
    shell(
        server,
        "from dashboard.models import Order\n"
        "from django.db import transaction\n"
        "try:\n"
        "    with transaction.atomic():\n"
        "        Order.objects.create(customer='Undone', total=1)\n"
        "        raise ValueError\n"
        "except ValueError:\n"
        "    Order.objects.create(customer='Zoe', total=7)\n",
    )
    eventually(lambda: "Zoe 7.00" in text_of(browser, "orders"))
    assert "Undone" not in text_of(browser, "orders")
    shell(
        server,
        "from dashboard.models import Order\n"
        "order = Order.objects.get(customer='Zoe'); order.state = 'sent'; order.save()",
    )
    eventually(lambda: "Zoe 7.00 sent" in text_of(browser, "orders"))
    take_picture(browser, "dashboard")
    shell(server, "from dashboard.models import Order; Order.objects.all().delete()")
    eventually(lambda: text_of(browser, "orders") == "")


def test_bell_rings_in_each_tab(start: Start, browser: Chrome) -> None:
    """And is quiet again in each of them when it is clicked in one."""
    server = start("bell")
    browser.get(server.url("/", "http"))
    browser.find_element("link text", "Sign in").click()
    browser.find_element("name", "username").send_keys("demo")
    browser.find_element("name", "password").send_keys("demo\n")
    eventually(lambda: "Hello demo" in browser.page_source)
    with two_tabs(browser, server.url("/", "http")) as tabs:
        shell(
            server,
            "import time\n"
            "from bell.notifications import notify\n"
            "from django.contrib.auth import get_user_model\n"
            "from dwebsocket import user\n"
            "person = get_user_model().objects.get()\n"
            "while user(person).count() < 2: time.sleep(0.1)\n"
            "notify(person, 'your train leaves')",
        )

        def rings(unread: str) -> bool:
            return browser.find_element("id", "bell").get_attribute("data-unread") == unread

        for tab in tabs:
            browser.switch_to.window(tab)
            eventually(lambda: rings("1") and "your train leaves" in text_of(browser, "latest"))
        take_picture(browser, "bell")
        browser.find_element("id", "bell").click()
        for tab in tabs:
            browser.switch_to.window(tab)
            eventually(lambda: rings("0"))


PAINTED = """
const { data } = document.querySelector("#board").getContext("2d").getImageData(0, 0, 1600, 1000);
let painted = 0;
for (let i = 3; i < data.length; i += 4) painted += data[i] > 0;
return painted;
"""


def test_board_is_one_for_all(start: Start, browser: Chrome) -> None:
    """Those that come later get what was drawn."""
    from selenium.webdriver import ActionChains

    server = start("board")
    with two_tabs(browser, server.url("/first/", "http")) as (first, second):
        canvas = browser.find_element("id", "board")
        eventually(lambda: canvas.get_attribute("data-state") == "open", what="the board is open")
        actions = ActionChains(browser)
        actions.move_to_element_with_offset(canvas, -200, -100).click_and_hold()
        for x, y in ((60, 120), (80, -90), (90, 130), (70, -60)):
            actions.move_by_offset(x, y)
        actions.release().perform()
        painted = browser.execute_script(PAINTED)
        assert painted > 500
        take_picture(browser, "board")

        def looks_alike() -> bool:
            return abs(browser.execute_script(PAINTED) - painted) < painted / 5

        browser.switch_to.window(first)
        eventually(looks_alike)
        # One that opens it later.
        browser.refresh()
        eventually(looks_alike)
        browser.switch_to.window(second)
        browser.get(server.url("/second/", "http"))
        assert browser.execute_script(PAINTED) == 0


def test_board_keeps_what_is_drawn_during_a_break(start: Start, browser: Chrome) -> None:
    """Whether the stroke began before it or in it."""
    from selenium.webdriver import ActionChains

    server = start("board")
    with Relay(server.port) as relay:
        browser.get(f"http://127.0.0.1:{relay.port}/first/")
        canvas = browser.find_element("id", "board")

        def is_open() -> bool:
            return canvas.get_attribute("data-state") == "open"

        eventually(is_open, what="the board is open")
        actions = ActionChains(browser)
        actions.move_to_element_with_offset(canvas, -200, -100).click_and_hold()
        actions.move_by_offset(20, 20).perform()
        relay.is_open.clear()
        relay.cut()
        eventually(lambda: not is_open(), what="the break is noticed")
        actions = ActionChains(browser)
        actions.move_by_offset(300, 40).release()
        actions.move_by_offset(0, 50).click_and_hold().move_by_offset(-300, 40).release().perform()
        painted = browser.execute_script(PAINTED)
        relay.is_open.set()
        eventually(is_open, what="the board is open again")
        eventually(lambda: abs(browser.execute_script(PAINTED) - painted) < painted / 5)
        browser.get("about:blank")


def test_an_answer_comes_word_by_word_and_can_be_stopped(start: Start, browser: Chrome) -> None:
    """Nothing of one that was stopped is in the next one."""
    browser.get(start("answers").url("/", "http"))
    ask, stop = (browser.find_element("id", name) for name in ("ask", "stop"))
    ask.click()
    eventually(lambda: "asked on a page" in text_of(browser, "answer"))
    take_picture(browser, "answers")
    stop.click()
    assert not stop.is_enabled()
    ask.click()
    eventually(lambda: "there was" in text_of(browser, "answer"))
    assert text_of(browser, "answer").startswith("Once upon a time there was")


def test_kanban_is_shared_by_two_browsers(start: Start, browser: Chrome, tmp_path: Path) -> None:
    """Cards, pointers, who changes what; a reload of the page loses nothing."""
    from selenium.webdriver import ActionChains

    server = start("kanban")

    def titles(page: Chrome, lane: str) -> list[str]:
        return page.execute_script(
            f"return [...document.querySelectorAll('[data-column={lane}] .title')]"
            ".map((title) => title.textContent)"
        )

    def is_live(page: Chrome) -> None:
        eventually(lambda: text_of(page, "state") == "live", what="the board is live")

    with chromium(tmp_path / "other") as other:
        for page, name in ((browser, "Anna"), (other, "Ben")):
            page.get(server.url(f"/boards/first/?name={name}", "http"))
            is_live(page)
        eventually(lambda: text_of(browser, "members") == "A\nB")
        # What is written, and by whom.
        other.find_element("css selector", "[data-column=doing] .add").click()
        eventually(lambda: "New card" in titles(browser, "doing"))
        title = other.find_elements("css selector", "[data-column=doing] .title")[-1]
        title.click()
        by = "return document.querySelector('[data-by]')?.dataset.by"
        eventually(lambda: browser.execute_script(by) == "Ben", what="who writes")
        title.send_keys(", written by Ben")
        eventually(lambda: "written by Ben" in titles(other, "doing")[-1], what="Ben has typed it")
        take_picture(browser, "kanban")
        title.send_keys("\n")
        is_left = "return !document.activeElement.matches('.title')"
        eventually(lambda: other.execute_script(is_left), what="Ben has left the title")
        eventually(lambda: "written by Ben" in titles(browser, "doing")[-1], what="Anna sees it")
        eventually(lambda: browser.execute_script(by) is None, what="Ben has written")
        # Dragged to another column, with the pointer that does it.
        card = browser.find_elements("css selector", "[data-column=ideas] .tools")[0]
        actions = ActionChains(browser)
        actions.move_to_element_with_offset(card, -20, 0).click_and_hold()
        for _ in range(10):
            actions.move_by_offset(30, 2).pause(0.05)
        actions.perform()
        pointer = "return document.querySelector('.pointer')?.textContent"
        eventually(lambda: other.execute_script(pointer) == "Anna", what="the pointer")
        ActionChains(browser).release().perform()
        eventually(lambda: "Invite a friend to this board" in titles(other, "doing"))
        # What happens while a page is away is there when it comes back.
        browser.get("about:blank")
        other.find_element("css selector", "[data-column=done] [data-delete]").click()
        eventually(lambda: titles(other, "done") == [])
        browser.back()
        is_live(browser)
        eventually(lambda: titles(browser, "done") == [])
        for lane in ("ideas", "doing"):
            eventually(lambda lane=lane: titles(browser, lane) == titles(other, lane))
        # On a phone columns are beside the screen, and cards have arrows.
        browser.set_window_size(390, 800)
        browser.refresh()
        is_live(browser)
        wide = "return document.documentElement.scrollWidth <= innerWidth"
        assert browser.execute_script(wide)
        browser.find_element("css selector", "[data-column=ideas] [data-step='1']").click()
        eventually(lambda: titles(other, "ideas") == [])
        browser.set_window_size(900, 700)
        browser.get("about:blank")


def test_kanban_takes_no_style_of_others(start: Start, browser: Chrome) -> None:
    """The colour of a visitor is a value, and no further declarations."""
    server = start("kanban")
    browser.get(server.url("/boards/first/", "http"))
    eventually(lambda: text_of(browser, "state") == "live", what="the board is live")
    style = (
        "const found = document.querySelector('.pointer'); return found && getComputedStyle(found)"
    )
    with connect(server.url("/live/"), subprotocols=["dwebsocket.rooms.1"]) as eve:
        info = {"name": "Eve", "hue": "0; position: fixed; outline: 9px solid red"}
        eve.send_json({"id": 1, "join": "board-first", "info": info})
        assert "ok" in eve.receive_json(20)
        eve.send_json({"to": "board-first", "event": "pointer", "data": {"x": 0.5, "y": 9}})
        eventually(lambda: browser.execute_script(f"{style}?.position"), what="a pointer")
        assert browser.execute_script(f"{style}.position") == "absolute"


def test_kanban_goes_on_when_its_code_changes(start: Start, browser: Chrome) -> None:
    """A page that is open loses no change while the server begins anew, and can go on changing."""
    server = start("kanban", reloads=True)

    def serving() -> set[int]:
        return {each for one in children_of(server.process.pid) for each in children_of(one)}

    def has_title(text: str) -> bool:
        titles = browser.find_elements("css selector", "[data-column=ideas] .title")
        return any(text in title.text for title in titles)

    browser.get(server.url("/boards/first/?name=Anna", "http"))
    eventually(lambda: text_of(browser, "state") == "live")
    before = serving()
    assert before
    (server.cwd / "kanban" / "rooms.py").touch()
    shell(
        server,
        "from dwebsocket import group\n"
        "from kanban.models import Card\n"
        "card = Card.objects.create(board='first', column='ideas', rank=9, title='Meanwhile')\n"
        "group('board-first').send_json({'card': card.as_dict()})",
    )
    eventually(lambda: serving() and before.isdisjoint(serving()), what="another process serves")
    eventually(lambda: has_title("Meanwhile"))
    eventually(lambda: text_of(browser, "state") == "live")
    browser.find_element("css selector", "[data-column=ideas] .add").click()
    eventually(lambda: has_title("New card"))
    browser.get("about:blank")


def test_page_of_a_task_gets_its_whole_log(start: Start, browser: Chrome) -> None:
    """Whenever it is opened."""
    browser.get(start("task").url("/", "http"))
    browser.find_element("tag name", "button").click()
    eventually(lambda: "sheep 10" in text_of(browser, "log"))
    take_picture(browser, "task")
    browser.refresh()
    eventually(lambda: text_of(browser, "log").endswith("asleep"))
    lines = text_of(browser, "log").split("\n")
    assert lines == [*(f"sheep {counted}" for counted in range(1, 41)), "asleep"]


def test_fastapi_beside_django(start: Start, browser: Chrome) -> None:
    """A value that FastAPI takes is on Django's page."""
    from websockets.sync.client import connect

    server = start("fastapi_beside")
    browser.get(server.url("/", "http"))
    with connect(server.url("/api/temperature")) as sensor:

        def is_shown() -> bool:
            sensor.send('{"celsius": 21.5}')
            assert sensor.recv(timeout=30) == '{"taken":true}'
            return text_of(browser, "value") == "21.5 °C"

        # The page may connect later than the sensor.
        eventually(is_shown)
    take_picture(browser, "fastapi")


@pytest.mark.every("the parts of it are tested one by one")
def test_consumer_that_moved_over(start: Start, browser: Chrome) -> None:
    """Two pages of one room, under runserver."""
    server = start("moved")
    with two_tabs(browser, server.url("/kitchen/", "http")) as tabs:
        for tab in tabs:
            browser.switch_to.window(tab)
            is_open = "return socket.readyState === WebSocket.OPEN"
            eventually(lambda code=is_open: browser.execute_script(code))
        browser.find_element("id", "text").send_keys("hello\n")
        for tab in tabs:
            browser.switch_to.window(tab)
            eventually(lambda: text_of(browser, "messages") == "hello")
        browser.find_element("id", "text").send_keys("is dinner ready?\n")
        eventually(lambda: "dinner" in text_of(browser, "messages"))
        take_picture(browser, "moved")

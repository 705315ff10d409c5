"""
The documentation as a site, in Chromium: `make site-check` builds it and runs this.

Each page at the width of a desktop and of a phone; diagrams, pictures, search, dark colours.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.browser import chromium
from support.pages import ROOT, blocks
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver import Chrome

SITE = Path(os.environ.get("SITE", "nowhere"))

pytestmark = [
    # The gate runs them at the lowest priority.
    pytest.mark.timeout(600),
    pytest.mark.needs("chromium"),
    pytest.mark.skipif(not SITE.is_dir(), reason="there is no site: make site-check builds it"),
]

WIDTHS = {"desktop": 1280, "phone": 390}
# The mistakes of the page that is shown, in words.
LOOK = """
const wrong = [];
const page = document.documentElement;
if (page.scrollWidth > innerWidth) {
  wrong.push(`it is ${page.scrollWidth} wide`);
  for (const each of document.querySelectorAll("article *"))
    if (each.getBoundingClientRect().right > innerWidth && !each.closest("pre, table, svg"))
      wrong.push(`too wide: ${each.outerHTML.slice(0, 80)}`);
}
for (const image of document.images)
  if (!image.complete || !image.naturalWidth) wrong.push(`not shown: ${image.src}`);
if (document.querySelector("pre.mermaid")) wrong.push("a diagram is not drawn");
for (const picture of document.querySelectorAll("div.mermaid"))
  if (picture.scrollHeight < 100) wrong.push("a diagram is empty");
for (const { name } of performance.getEntriesByType("resource"))
  if (new URL(name).host !== location.host) wrong.push(`asks another host: ${name}`);
if (parseFloat(getComputedStyle(document.querySelector("article p, article h1")).fontSize) < 14)
  wrong.push("small letters");
return [...new Set(wrong)];
"""
# How many diagrams there are.
DIAGRAMS = 'return document.querySelectorAll("div.mermaid").length'
PAGES = sorted(path.parent.relative_to(SITE).as_posix() for path in SITE.rglob("index.html"))


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, *args: object) -> None:
        """Be silent."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve the site on this machine."""
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join(20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def set_width(browser: Chrome, width: int) -> None:
    """Make the window as wide as a device's."""
    device = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)


def set_scheme(browser: Chrome, scheme: str) -> None:
    """Make the system's colours light or dark."""
    wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)


def test_there_are_pages() -> None:
    """One for each page of docs/."""
    assert {"start", "async", "reference", "zh", "zh/start"} <= set(PAGES)


@pytest.mark.timeout(1200)
def test_every_page(browser: Chrome, address: str) -> None:
    """Nothing is wider than the window, everything is shown, and no other host is asked."""
    wrong: dict[str, Any] = {}
    set_scheme(browser, "light")
    for page in PAGES:
        set_width(browser, WIDTHS["desktop"])
        browser.get(address if page == "." else f"{address}{page}/")
        number = languages(page).count("mermaid")
        eventually(lambda n=number: browser.execute_script(DIAGRAMS) == n, what=page)
        for name, width in WIDTHS.items():
            set_width(browser, width)
            try:
                eventually(lambda: browser.execute_script(LOOK) == [], 20)
            except AssertionError:
                wrong[f"{page}, {name}"] = browser.execute_script(LOOK)
    assert wrong == {}


def languages(page: str) -> list[str]:
    """Give the languages of the blocks on a page of the site."""
    source = next(name for name in (f"docs/{page}.md", f"docs/{page}/index.md") if is_page(name))
    return [each.language for each in blocks(source)]


def is_page(name: str) -> bool:
    """Whether there is a file of that name."""
    return (ROOT / name).is_file()


COLOURS = """
const body = getComputedStyle(document.body);
return [body.backgroundColor, getComputedStyle(document.querySelector("article p")).color];
"""


@pytest.mark.parametrize("width", WIDTHS)
def test_dark_colours(browser: Chrome, address: str, width: str) -> None:
    """Follow the system, and letters differ from what is behind them."""
    set_width(browser, WIDTHS[width])
    for scheme in ("light", "dark"):
        set_scheme(browser, scheme)

        def follows(is_dark: bool = scheme == "dark") -> bool:
            # A page keeps its first colours there, for the next one, and it may be about to.
            browser.get(f"{address}architecture/")
            browser.execute_script("localStorage.clear()")
            browser.refresh()
            behind, letters = map(brightness, browser.execute_script(COLOURS))
            return behind < 60 < letters - 100 if is_dark else behind > 200 > letters + 100

        eventually(follows, what=f"the page is {scheme}")


def brightness(colour: str) -> float:
    """Give the mean of red, green and blue, 0 to 255; letters may be partly transparent."""
    found = [float(part) for part in re.findall(r"[\d.]+", colour)]
    return sum(found[:3]) / 3


@pytest.mark.parametrize(
    ("words", "page"), [("websocket_max_message_size", "settings"), ("重连", "zh/")]
)
def test_search(browser: Chrome, address: str, words: str, page: str) -> None:
    """Finds words, also Chinese ones, without any other server."""
    set_width(browser, WIDTHS["desktop"])
    browser.get(f"{address}start/")
    field = browser.find_element("css selector", ".md-search__input")
    field.click()
    field.send_keys(words)
    results = 'return [...document.querySelectorAll(".md-search-result__link")].map((a) => a.href)'
    eventually(lambda: any(f"/{page}" in link for link in browser.execute_script(results)))
    assert browser.execute_script(LOOK) == []


# Where the menu, the logo and the choice of languages lead to.
WAYS = """
const to = (links) => [...document.querySelectorAll(links)].map((link) => link.href.split("#")[0]);
return [to(".md-nav--primary .md-nav__item > a[href]"), to("a.md-logo"), to("a.md-select__link")];
"""


@pytest.mark.parametrize(
    ("page", "home", "language"),
    [
        ("", "", "en"),
        ("start/", "", "en"),
        ("zh/", "zh/", "zh-Hans"),
        ("zh/start/", "zh/", "zh-Hans"),
    ],
)
def test_language(browser: Chrome, address: str, page: str, home: str, language: str) -> None:
    """Pages in Chinese say so, and have a menu and a first page of their own."""
    browser.get(f"{address}{page}")
    assert browser.execute_script("return document.documentElement.lang") == language
    menu, logos, choice = browser.execute_script(WAYS)
    assert len(set(menu)) > 5
    assert {link.startswith(f"{address}zh/") for link in menu} == {home == "zh/"}
    assert set(logos) == {f"{address}{home}"}
    assert choice == [address, f"{address}zh/"]

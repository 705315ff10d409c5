"""The package for npm in fresh projects of Vite: docs/rooms.md with React and Vue, in Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from support.browser import chromium
from support.pages import block
from support.server import ROOT, RUNSERVER, Server
from support.start_page import add_room, make
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

pytestmark = [
    pytest.mark.needs("chromium"),
    pytest.mark.every("installs React, Vue and Vite: a minute each"),
]

FOLDER = ROOT / "python" / "dwebsocket" / "static" / "dwebsocket"
PAGE = "docs/rooms.md"
TSCONFIG = {
    "compilerOptions": {
        "target": "esnext",
        "module": "esnext",
        "moduleResolution": "bundler",
        "lib": ["esnext", "dom", "dom.iterable"],
        "jsx": "react-jsx",
        "strict": True,
        "noEmit": True,
        "types": [],
    },
    "include": ["src"],
}
INDEX = """<!doctype html>
<meta charset="utf-8">
<title>Room</title>
<link rel="icon" href="data:,">
<div id="app"></div>
<script>
  globalThis.WebSocket = class extends WebSocket {
    static made = 0;
    // Vite has one of its own.
    constructor(...how) { super(...how); WebSocket.made += /live/.test(how[0]); }
  };
</script>
<script type="module" src="/src/main.ts"></script>
"""
CONFIG = """
    import plugin from "@vitejs/plugin-{name}";
    const proxy = {{ "/live/": {{ target: process.env.SITE, ws: true }} }};
    const server = {{ host: "127.0.0.1", port: 0, proxy }};
    export default {{ base: "./", plugins: [plugin()], server }};
"""
REACT = {
    "vite.config.js": CONFIG.format(name="react"),
    "src/main.tsx": """
        import { StrictMode } from "react";
        import { createRoot } from "react-dom/client";
        import App from "./App";
        createRoot(document.getElementById("app")!).render(<StrictMode><App /></StrictMode>);
    """,
}
VUE = {
    "vite.config.js": CONFIG.format(name="vue"),
    "src/main.ts": """
        import { createApp } from "vue";
        import App from "./App.vue";
        const first = createApp(App);
        first.mount("#app");
        first.unmount();
        createApp(App).mount("#app");
    """,
}
# What is installed, the checker of types, the files, and the page's block.
PROJECTS: dict[str, tuple[str, str, dict[str, str], tuple[str, str]]] = {
    "React": (
        "react react-dom @types/react @types/react-dom @vitejs/plugin-react",
        "tsc",
        {**REACT, "index.html": INDEX.replace("main.ts", "main.tsx")},
        ("src/App.tsx", "tsx"),
    ),
    "Vue": (
        "vue vue-tsc @vitejs/plugin-vue",
        "vue-tsc",
        {**VUE, "index.html": INDEX},
        ("src/App.vue", "vue"),
    ),
}


def npm(folder: Path, *arguments: str) -> None:
    """Run npm, or what it has installed."""
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `npm pack` gives."""
    folder = tmp_path_factory.mktemp("pack")
    if subprocess.run(["npm", "ping"], capture_output=True, timeout=110).returncode:
        pytest.skip("no registry of npm")
    npm(FOLDER, "npm", "pack", "--silent", "--pack-destination", str(folder))
    (packed,) = folder.iterdir()
    return str(packed)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """The project of the page, and the folder of its static files."""
    folder = tmp_path_factory.mktemp("site")
    make(folder)
    add_room(folder)
    static = folder / "pages"
    static.mkdir()
    with (folder / "mysite" / "settings.py").open("a") as file:
        file.write(f"STATICFILES_DIRS = [{str(static)!r}]\n")
    with Server(RUNSERVER, cwd=folder, module="mysite") as server:
        yield server, static


@pytest.fixture(scope="module", params=PROJECTS)
def project(
    request: pytest.FixtureRequest, tarball: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A framework, and the folder of a project with it."""
    packages, _, files, (path, language) = PROJECTS[request.param]
    folder = tmp_path_factory.mktemp("project")
    written: dict[str, Any] = {
        **files,
        "package.json": json.dumps({"name": "page", "private": True, "type": "module"}),
        "tsconfig.json": json.dumps(TSCONFIG),
        "src/live.ts": block(PAGE, "src/live.ts", "ts"),
        path: block(PAGE, path, language),
    }
    for each, text in written.items():
        (folder / each).parent.mkdir(parents=True, exist_ok=True)
        (folder / each).write_text(text)
    install = "npm install --silent --no-audit --no-fund --no-package-lock vite typescript"
    npm(folder, *install.split(), *packages.split(), tarball)
    return request.param, folder


@pytest.fixture
def vite(project: tuple[str, Path], site: tuple[Server, Path]) -> Iterator[str]:
    """Vite's own server for those who write the page: its address."""
    environment = {**os.environ, "SITE": site[0].url("", "http"), "NO_COLOR": "1"}
    command = ["node", "node_modules/vite/bin/vite.js"]
    with subprocess.Popen(
        command, cwd=project[1], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        found = (re.search(r"Local: +(http\S+)", line) for line in process.stdout)
        yield next(filter(None, found))[1]
        process.terminate()


def shows(browser: Chrome, part: str, text: str) -> None:
    """Wait until an element of the page has a text."""
    script = f"return document.getElementById({part!r})?.innerText"
    eventually(lambda: browser.execute_script(script) == text, 60, f"{part} is {text}")


def test_two_pages_in_a_room(
    project: tuple[str, Path], site: tuple[Server, Path], tmp_path: Path
) -> None:
    """Types and build pass; each page sees the other, what is said, and the end of the other."""
    name, folder = project
    checker = PROJECTS[name][1]
    npm(folder, "npx", checker, "--project", "tsconfig.json")
    npm(folder, "npx", "vite", "build", "--logLevel", "warn")
    server, static = site
    shutil.copytree(folder / "dist", static / name)
    with chromium(tmp_path / "one") as one, chromium(tmp_path / "two") as two:
        for browser in (one, two):
            browser.get(server.url(f"/static/{name}/index.html", "http"))
        for browser in (one, two):
            shows(browser, "state", "joined")
            shows(browser, "members", f"{name}, {name}")
            # One for the page, though its component was there twice.
            assert browser.execute_script("return WebSocket.made") == 1
        one.find_element("id", "message").send_keys("hello\n")
        for browser in (one, two):
            shows(browser, "messages", "hello")
        assert [each["message"] for each in one.get_log("browser")] == []
        two.get("about:blank")
        shows(one, "members", name)


def test_a_save_opens_no_websocket(project: tuple[str, Path], vite: str, tmp_path: Path) -> None:
    """Vite puts the component's new code into the open page."""
    name, folder = project
    component = folder / PROJECTS[name][3][0]
    text = component.read_text()
    with chromium(tmp_path / "profile") as browser:
        browser.get(vite)
        shows(browser, "state", "joined")
        browser.execute_script("window.isSame = true")
        # The last one is as it was.
        for mark in ("!", "?", ""):
            component.write_text(text.replace("</p>", f"{mark}</p>", 1))
            shows(browser, "state", f"joined{mark}")
        assert browser.execute_script("return [WebSocket.made, window.isSame]") == [1, True]

"""The package for npm in fresh projects of Vite: docs/rooms.md with React and Vue, in Chromium."""

from __future__ import annotations

import json
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
    constructor(...how) { super(...how); WebSocket.made++; }
  };
</script>
<script type="module" src="/src/main.ts"></script>
"""
REACT = {
    "vite.config.js": """
        import react from "@vitejs/plugin-react";
        export default { base: "./", plugins: [react()] };
    """,
    "src/main.tsx": """
        import { StrictMode } from "react";
        import { createRoot } from "react-dom/client";
        import App from "./App";
        createRoot(document.getElementById("app")!).render(<StrictMode><App /></StrictMode>);
    """,
}
VUE = {
    "vite.config.js": """
        import vue from "@vitejs/plugin-vue";
        export default { base: "./", plugins: [vue()] };
    """,
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


@pytest.mark.parametrize("name", PROJECTS)
def test_two_pages_in_a_room(
    name: str, tarball: str, site: tuple[Server, Path], tmp_path: Path
) -> None:
    """Types and build pass; each page sees the other, what is said, and the end of the other."""
    packages, checker, files, (path, language) = PROJECTS[name]
    folder = tmp_path / "project"
    written: dict[str, Any] = {
        **files,
        "package.json": json.dumps({"name": "page", "private": True, "type": "module"}),
        "tsconfig.json": json.dumps(TSCONFIG),
        path: block(PAGE, path, language),
    }
    for each, text in written.items():
        (folder / each).parent.mkdir(parents=True, exist_ok=True)
        (folder / each).write_text(text)
    install = "npm install --silent --no-audit --no-fund --no-package-lock vite typescript"
    npm(folder, *install.split(), *packages.split(), tarball)
    npm(folder, "npx", checker, "--project", "tsconfig.json")
    npm(folder, "npx", "vite", "build", "--logLevel", "warn")
    server, static = site
    shutil.copytree(folder / "dist", static / name)
    with chromium(tmp_path / "one") as one, chromium(tmp_path / "two") as two:

        def shows(browser: Any, part: str, text: str) -> None:
            script = f"return document.getElementById({part!r})?.innerText"
            eventually(lambda: browser.execute_script(script) == text, 60, f"{part} is {text}")

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

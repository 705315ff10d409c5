"""docs/start.md: its project runs."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.browser import chromium
from support.server import ROOT, RUNSERVER, Server
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"\A(?:# |<!-- )([\w/.]+)(, below \w+)?(?: -->)?\n")


def blocks(page: str) -> list[tuple[str, str]]:
    """Give the blocks of a page, with their languages."""
    return BLOCK.findall((DOCS / page).read_text())


@pytest.mark.needs("chromium")
def test_project(tmp_path: Path) -> None:
    """Two windows see what is written in one of them, and what another process sends."""

    def manage(*arguments: str, env: dict[str, str] | None = None) -> None:
        subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, env=env)

    commands = [
        line for kind, text in blocks("start.md") if kind == "console" for line in text.splitlines()
    ]
    # Those that make the project; `.ci/install-wheel` runs all of them.
    for command in commands:
        if command.startswith("django-admin "):
            manage("-m", "django", *command.split()[1:])
        elif command.endswith((" startapp chat", " migrate")):
            manage(*command.split()[1:])
        if command.endswith(" startapp chat"):
            for _, text in blocks("start.md"):
                if (named := FILE.match(text)) is not None and named[2] != ", below MIDDLEWARE":
                    path = tmp_path / named[1]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("a" if named[2] else "w") as file:
                        file.write(text[named.end() :])
    with (
        Server(RUNSERVER, cwd=tmp_path, module="mysite") as server,
        chromium(tmp_path / "profile") as browser,
    ):
        first = browser.current_window_handle
        browser.get(server.url("/chat/", "http"))
        browser.switch_to.new_window("window")
        browser.get(server.url("/chat/", "http"))
        # Until both windows are members, in whose group no history is kept.
        wait = "import time\nwhile group('chat').count() < 2: time.sleep(0.1)"
        members = f"from dwebsocket import group\n{wait}"
        manage("manage.py", "shell", "-c", members, env=server.env)
        browser.find_element("id", "message").send_keys("hello\n")
        (shell,) = [command for command in commands if " shell -c " in command]
        code = re.search(r'"(.*)"', shell)
        assert code is not None

        def sees(*texts: str) -> bool:
            return browser.find_element("id", "messages").text.split("\n") == list(texts)

        eventually(lambda: sees("hello"))
        # The server has a folder for its groups of its own.
        manage("manage.py", "shell", "-c", code[1], env=server.env)
        for window in (browser.current_window_handle, first):
            browser.switch_to.window(window)
            eventually(lambda: sees("hello", "from a shell"))

"""docs/start.md: its project runs."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.browser import chromium
from support.server import RUNSERVER, Server
from support.start_page import make
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.needs("chromium")
def test_project(tmp_path: Path) -> None:
    """Two windows see what is written in one of them, and what another process sends."""

    def manage(*arguments: str, env: dict[str, str]) -> None:
        subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, env=env)

    commands = make(tmp_path)
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

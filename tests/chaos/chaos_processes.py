"""The processes around the site: its clients, its publishers, and the network between."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.browser import chromium
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos_model import Attempt
    from selenium.webdriver import Chrome
    from typing_extensions import Self

    from support.server import Server

HERE = Path(__file__).resolve().parent
Plans = list[dict[str, Any]]


class Lines:
    """A process that answers each line of JSON with one; use as a context manager."""

    def __init__(self, *command: str) -> None:
        self._command = command

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.communicate()

    def ask(self, line: Any) -> Any:
        """Write a line, and give the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{json.dumps(line)}\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> Any:
        """Give the next line of its output."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


class Network(Lines):
    """The proxy between clients and site."""

    def __init__(self, server: Server) -> None:
        super().__init__("node", str(HERE / "proxy.mjs"), str(server.port))

    def __enter__(self) -> Self:
        super().__enter__()
        self.address = f"ws://127.0.0.1:{self.read()}"
        return self


class NodeClients:
    """Clients in a Node process."""

    def __init__(self, address: str, plans: Plans) -> None:
        self.count = len(plans)
        self._lines = Lines("node", str(HERE / "clients.mjs"), address, json.dumps(plans))

    def __enter__(self) -> Self:
        self._lines.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._lines.__exit__(*exception)

    def call(self, name: str, *values: Any) -> Any:
        """Call a method of the crowd."""
        return self._lines.ask([name, *values])

    def sleep(self) -> None:
        """As a laptop that is closed."""
        self._lines.process.send_signal(signal.SIGSTOP)

    def awake(self) -> None:
        """As one that is opened again."""
        self._lines.process.send_signal(signal.SIGCONT)


class PageClients:
    """Clients in a page of Chromium."""

    def __init__(self, driver: Chrome, address: str, plans: Plans) -> None:
        self.count = len(plans)
        self._driver = driver
        driver.set_script_timeout(60)
        driver.get(f"{address.replace('ws', 'http')}/chaos/page/")
        eventually(lambda: driver.execute_script("return Boolean(window.begin)"))
        driver.execute_script("begin(arguments[0])", plans)

    def call(self, name: str, *values: Any) -> Any:
        """Call a method of the crowd."""
        return self._driver.execute_script(f"return clients.{name}(...arguments)", *values)

    def sleep(self) -> None:
        """As a page that the browser freezes."""
        self._become("frozen")

    def awake(self) -> None:
        """As one that is shown again."""
        self._become("active")

    def _become(self, state: str) -> None:
        self._driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": state})


@contextlib.contextmanager
def page_clients(profile: Path, address: str, plans: Plans) -> Iterator[PageClients]:
    """Run a browser with a page of clients."""
    with chromium(profile) as driver:
        yield PageClients(driver, address, plans)


Clients = NodeClients | PageClients


def all_are(clients: list[Clients], what: str, *values: Any) -> bool:
    """Whether all clients are so."""
    return all(each.call(what, *values) == each.count for each in clients)


class Publisher:
    """A process that publishes to several groups; use as a context manager."""

    def __init__(self, server: Server, *arguments: str) -> None:
        self._env = server.env
        self._command = [sys.executable, str(HERE / "chaos_publisher.py"), *arguments]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._env,
            cwd=os.fspath(HERE.parent),
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()

    def end(self) -> list[Attempt]:
        """Have it end, and give its attempts."""
        out, errors = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, errors
        assert "Traceback" not in errors, errors
        return [tuple(attempt) for attempt in json.loads(out)]

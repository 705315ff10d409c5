"""
The recipes: a log tail, a terminal, a pod's console, the progress of a job.

They are the views of examples/recipes/, each through real servers and a real client.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import shlex
import signal
from typing import TYPE_CHECKING

import pytest
from selenium.webdriver.common.keys import Keys
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.browser import chromium
from support.clients import websocket
from support.raw_peer import BINARY, CONTINUATION, PING, TEXT, RawPeer
from support.server import (
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    ROOT,
    RUNSERVER,
    TESTS,
    Server,
    children_of,
    command_line,
    is_running,
)
from support.waiting import eventually, pause

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

pytestmark = pytest.mark.extended("runs the examples")

PROJECT = ROOT / "examples" / "recipes"
ARTIFACTS = TESTS / "artifacts"
MIB = 1024 * 1024

everywhere = pytest.mark.parametrize(
    "site", [RUNSERVER, GUNICORN_GTHREAD, GUNICORN_GEVENT], ids=str, indirect=True
)
# The shell reads no files of the user who runs the tests, and writes none.
SHELL = {"RECIPES_SHELL": "bash --norc", "HISTFILE": "/dev/null", "PS1": "$ "}


def recipes(kind: object, **env: str) -> Server:
    """Give a server of the recipes that has yet to be started."""
    return Server(kind, cwd=PROJECT, module="recipes", probe="/", env={**SHELL, **env})


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that the log tail follows."""
    path = tmp_path_factory.mktemp("recipes") / "site.log"
    path.write_text("".join(f"line {number}\n" for number in range(150)))
    return path


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, log: Path) -> Iterator[Server]:
    """The recipes on one kind of server."""
    with recipes(request.param, RECIPES_LOG=str(log)) as server:
        yield server


def no_process(server: Server) -> None:
    """Wait until the processes of all pages have gone, and were asked for their status."""
    eventually(lambda: children_of(server.worker) == [], 60, "no process is left")


@pytest.fixture(autouse=True)
def no_process_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """However a test has left its page, the process behind it has to go."""
    names = [name for name in ("site", "plenty") if name in request.fixturenames]
    servers = [request.getfixturevalue(name) for name in names]
    yield
    for server in servers:
        no_process(server)


def read_until(client: ClientConnection, text: str) -> str:
    """Read messages until what came contains `text`, and return all of it."""
    seen = ""
    while text not in seen:
        message = client.recv(20)
        seen += message if isinstance(message, str) else message.decode()
    return seen


def keys(text: str) -> str:
    """Give the terminal's message for what is typed."""
    return json.dumps({"keys": text})


def shell_of(site: Server) -> int:
    """Return the pid of the only terminal's shell, once it is there."""
    (shell,) = eventually(
        lambda: [pid for pid in children_of(site.worker) if "bash" in command_line(pid)], 20
    )
    return shell


def sleeping(shell: int) -> list[int]:
    """Return the pids of the programs that sleep in a shell."""
    return [pid for pid in children_of(shell) if command_line(pid).startswith("sleep")]


@everywhere
class TestTail:
    """1: a file, followed."""

    def test_last_lines_and_what_follows(self, site: Server, log: Path) -> None:
        """The last 100 lines come first, then each line as it is written; all of it is text."""
        with websocket(site, "/tail/") as client:
            last = log.read_text().splitlines()[-100:]
            assert read_until(client, f"{last[-1]}\n").splitlines() == last
            with log.open("a") as file:
                file.write(f"grüße from {site.kind}\n")
            assert client.recv(20) == f"grüße from {site.kind}\n"


@everywhere
class TestTerminal:
    """2: a shell on a pty."""

    def test_shell(self, site: Server) -> None:
        """Typed keys reach it, its output comes back, its window has the size that was said."""
        with websocket(site, "/terminal/") as client:
            client.send(json.dumps({"rows": 33, "columns": 99}))
            client.send(keys("stty size; echo grüße-$((6 * 7))\r"))
            assert "33 99\r\ngrüße-42\r\n" in read_until(client, "\r\ngrüße-42\r\n")

    def test_interrupt(self, site: Server) -> None:
        """Ctrl-C ends the program in front, and the shell goes on."""
        with websocket(site, "/terminal/") as client:
            client.send(keys("sleep 1000\r"))
            shell = shell_of(site)
            eventually(lambda: sleeping(shell), 60, "the program runs")
            client.send(keys("\x03"))
            eventually(lambda: not sleeping(shell), 60, "the program has ended")
            client.send(keys("echo still $((6 * 7))\r"))
            read_until(client, "still 42\r\n")

    def test_exit(self, site: Server) -> None:
        """The end of the shell is the end of the connection, and the close says so."""
        with websocket(site, "/terminal/") as client:
            client.send(keys("exit\r"))
            with pytest.raises(ConnectionClosed):
                read_until(client, "nothing of that kind")
            assert (client.close_code, client.close_reason) == (1000, "the shell has ended")

    def test_keys_that_are_not_read(self, site: Server) -> None:
        """Keys that the program does not read are lost; server and view go on."""
        with RawPeer.open(site, "/terminal/") as peer:
            peer.send_text(keys("sleep 1000\r"))
            shell = shell_of(site)
            eventually(lambda: sleeping(shell), 60, "the program runs")
            for _ in range(50):
                peer.send_text(keys("0123456\r" * 1000))
            assert site.get("/").status == 200
            peer.vanish()

    def test_jobs_end_with_the_browser(self, site: Server) -> None:
        """Programs in front and in the background are hung up when the browser has vanished."""
        with RawPeer.open(site, "/terminal/") as peer:
            peer.send_text(keys("sleep 1000 & sleep 1000\r"))
            shell = shell_of(site)
            programs = eventually(
                lambda: sleeping(shell) if len(sleeping(shell)) == 2 else [], 20, "both run"
            )
            peer.vanish()
        eventually(lambda: not any(map(is_running, programs)), 60, "both have ended")


def test_jobs_end_where_the_server_ignores_hanging_up(log: Path) -> None:
    """A server under `nohup` ignores SIGHUP, which programs inherit; the shell's do not."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    server = recipes(RUNSERVER, RECIPES_LOG=str(log))
    try:
        server.__enter__()
    finally:
        signal.signal(signal.SIGHUP, before)
    with contextlib.ExitStack() as stack:
        stack.push(server.__exit__)
        peer = stack.enter_context(RawPeer.open(server, "/terminal/"))
        peer.send_text(keys("sleep 1000\r"))
        shell = shell_of(server)
        (program,) = eventually(lambda: sleeping(shell), 60, "it runs")
        peer.vanish()
        eventually(lambda: not is_running(program), 60, "it has ended")


@everywhere
class TestPod:
    """3: a command with a log and a prompt."""

    def test_console(self, site: Server) -> None:
        """Output of the command arrives, a typed line reaches it, and so does the answer."""
        with websocket(site, "/pod/") as client:
            read_until(client, "pod> ")
            client.send("grüße")
            read_until(client, "you typed grüße\npod> ")
            read_until(client, "served request ")


@everywhere
class TestProgress:
    """4: a program that says how far it is."""

    def test_cancel(self, site: Server) -> None:
        """Each line is a message, the time comes besides, and `cancel` kills the program."""
        with websocket(site, "/progress/") as client:
            seen = []
            while not any("seconds" in message for message in seen):
                seen.append(json.loads(client.recv(20)))
            percents = [message["percent"] for message in seen if "percent" in message]
            assert percents == list(range(len(percents)))
            client.send("cancel")
            rest = [json.loads(message) for message in client]
            assert (rest[-1], client.close_code) == ({"status": -9}, 1000)


def leave(peer: RawPeer, how: str) -> None:
    """Go as browsers go: with a close frame, with the end of the stream, or by a reset."""
    if how == "close":
        peer.send_close(1001)
        peer.read_to_eof()
    elif how == "end of stream":
        peer.finish()
        peer.read_to_eof()
    else:
        peer.vanish()


@everywhere
@pytest.mark.parametrize("path", ["/tail/", "/terminal/", "/pod/", "/progress/"])
def test_nothing_is_left(site: Server, path: str) -> None:
    """However the browser goes, the process goes with it, and the view with its threads."""

    def visit(how: str) -> None:
        with RawPeer.open(site, path) as peer:
            peer.read_message()
            assert children_of(site.worker)
            leave(peer, how)
        no_process(site)

    # The first visit starts what the server keeps, such as gevent's watcher of its children.
    visit("close")
    with site.quiet(), site.nothing_left():
        for how in ("close", "end of stream", "vanish"):
            visit(how)


@everywhere
def test_end_of_the_server(site: Server, log: Path) -> None:
    """The processes end with it, the jobs of the shell among them."""
    with recipes(site.kind, RECIPES_LOG=str(log)) as server, contextlib.ExitStack() as stack:
        terminal = stack.enter_context(RawPeer.open(server, "/terminal/"))
        terminal.send_text(keys("sleep 1000 & sleep 1000\r"))
        shell = shell_of(server)
        eventually(lambda: len(sleeping(shell)) == 2, 60, "both run")
        for path in ("/tail/", "/pod/", "/progress/"):
            stack.enter_context(RawPeer.open(server, path)).read_message()
        pids = [*children_of(server.worker), *sleeping(shell)]
        assert len(pids) == 6
        server.send_signal(server.end_signal)
        server.wait()
        eventually(lambda: not any(map(is_running, pids)), 60, "they have ended")
        assert server.stderr() == ""


class Untyped(ast.NodeTransformer):
    """Leaves out what is there for type checkers alone."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_Assert(self, node: ast.Assert) -> None:
        return None


def functions(code: str) -> dict[str, str]:
    """Give the functions of a module, without their docstrings, comments and types."""
    found = {}
    for node in ast.parse(code).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node):
                del node.body[0]
            node.returns = None
            if ast.unparse(node.body[-1]) == "return None":
                del node.body[-1]
            Untyped().visit(node)
            found[node.name] = ast.unparse(node)
    return found


def test_docs_show_these_views() -> None:
    """The page for users has the code that is tested here."""
    page = (ROOT / "docs" / "recipes.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    views = functions((PROJECT / "recipes" / "views.py").read_text())
    toasts = functions((PROJECT / "recipes" / "toasts.py").read_text())
    shown = functions("\n".join(blocks))
    assert {*toasts, "tail"} <= shown.keys()
    there = {**views, **toasts}
    assert shown == {name: there.get(name) for name in shown}
    (template,) = re.findall(r"^```html\n<!-- (.+) -->\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert (PROJECT / template[0]).read_text() == template[1]


@everywhere
class TestGuard:
    """The pages give a shell away: requests from elsewhere are refused."""

    @pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
    def test_behind_a_proxy(self, site: Server, header: str) -> None:
        """Each request seems to be from this machine there; all are refused."""
        assert site.get("/", {header: "203.0.113.7"}).status == 403
        with (
            pytest.raises(InvalidStatus) as caught,
            websocket(site, "/terminal/", additional_headers={header: "203.0.113.7"}),
        ):
            pass
        assert caught.value.response.status_code == 403

    def test_another_address(self, site: Server) -> None:
        """Requests from 127.0.0.2 are refused, though that is this machine, too."""
        client = http.client.HTTPConnection(*site.address, source_address=("127.0.0.2", 0))
        client.request("GET", "/")
        assert client.getresponse().status == 403
        client.close()
        with (
            pytest.raises(InvalidStatus) as caught,
            websocket(site, "/terminal/", source_address=("127.0.0.2", 0)),
        ):
            pass
        assert caught.value.response.status_code == 403

    def test_another_name(self, site: Server) -> None:
        """A page whose own name leads to 127.0.0.1 is refused."""
        with (
            pytest.raises(InvalidStatus) as caught,
            websocket(site, "/terminal/", additional_headers={"Host": "evil.example"}),
        ):
            pass
        assert caught.value.response.status_code == 400


def test_guard_without_debug(tmp_path: Path) -> None:
    """A deployed copy serves nothing."""
    (tmp_path / "deployed.py").write_text("from recipes.settings import *\nDEBUG = False\n")
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    env = {"DJANGO_SETTINGS_MODULE": "deployed", "PYTHONPATH": paths}
    with recipes(RUNSERVER, **env) as server:
        assert server.get("/terminal/").status == 403
        with pytest.raises(InvalidStatus) as caught, websocket(server, "/terminal/"):
            pass
        assert caught.value.response.status_code == 403


@pytest.fixture(scope="module")
def bytes_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 MiB of which most are no UTF-8."""
    path = tmp_path_factory.mktemp("recipes") / "bytes"
    path.write_bytes(random.Random(1).randbytes(20 * MIB))
    return path


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred lines that are 20 MiB, with characters of one to four bytes."""
    chance = random.Random(1)
    block = "".join(chance.choices("aü€😀 ", k=100_000))
    path = tmp_path_factory.mktemp("recipes") / "text"
    path.write_text("".join(f"{number} {block}\n" for number in range(100)), encoding="utf-8")
    assert path.stat().st_size > 20 * MIB
    return path


@pytest.fixture(scope="module")
def plenty(site: Server, bytes_file: Path, text_file: Path) -> Iterator[Server]:
    """The recipes on the same kind of server, with a long log and a pod that says much."""
    pod = shlex.join(["cat", str(bytes_file)])
    job = shlex.join(["sh", "-c", "for p in 0 50 100; do echo progress $p; done; exit 3"])
    env = {"RECIPES_LOG": str(text_file), "RECIPES_POD_COMMAND": pod, "RECIPES_JOB_COMMAND": job}
    with recipes(site.kind, **env) as server:
        yield server


def slow_digest(peer: RawPeer, size: int) -> tuple[set[int], str]:
    """Read `size` bytes of messages more slowly than they come; give their kinds and checksum."""
    kinds, digest, count, rested = set(), hashlib.sha256(), 0, 0
    pause(1)
    while count < size:
        frame = peer.read_frame()
        if frame.opcode == PING:
            continue
        kinds.add(frame.opcode)
        digest.update(frame.payload)
        count += len(frame.payload)
        if count - rested > MIB:
            rested = count
            pause(0.1)
    assert count == size
    return kinds - {CONTINUATION}, digest.hexdigest()


@everywhere
class TestPlenty:
    """20 MiB of a process's output and a client that reads slowly."""

    def test_text(self, plenty: Server, text_file: Path) -> None:
        """All of it arrives, as text that is cut between characters."""
        expected = text_file.read_bytes()
        with RawPeer.open(plenty, "/tail/", receive_buffer=65536) as peer:
            found = slow_digest(peer, len(expected))
        assert found == ({TEXT}, hashlib.sha256(expected).hexdigest())

    def test_binary(self, plenty: Server, bytes_file: Path) -> None:
        """All of it arrives, and the end of the command is the end of the connection."""
        expected = bytes_file.read_bytes()
        with RawPeer.open(plenty, "/pod/", receive_buffer=65536) as peer:
            assert slow_digest(peer, len(expected)) == (
                {BINARY},
                hashlib.sha256(expected).hexdigest(),
            )
            peer.send_close(1000)
            assert peer.read_to_eof().code == 1000

    def test_job_that_ends(self, plenty: Server) -> None:
        """Its last line arrives, then its status."""
        with websocket(plenty, "/progress/") as client:
            seen = [json.loads(client.recv(20)) for _ in range(4)]
            with pytest.raises(ConnectionClosed):
                client.recv(20)
        assert seen == [{"percent": 0}, {"percent": 50}, {"percent": 100}, {"status": 3}]


@pytest.mark.needs("chromium")
def test_terminal_in_a_browser(tmp_path: Path) -> None:
    """Keys, Backspace, arrows and Ctrl-C do in the page what they do in a terminal."""
    with recipes(RUNSERVER) as site, chromium(tmp_path / "profile") as browser:
        browser.get(site.url("/terminal/", "http"))
        screen = browser.find_element("id", "screen")
        state = browser.find_element("id", "state")

        def shown(line: str, times: int = 1) -> None:
            eventually(
                lambda: screen.text.splitlines().count(line) == times, 20, f"the page shows {line}"
            )

        eventually(lambda: state.text.endswith("connected"), 60, "connected")
        eventually(lambda: "$" in screen.text, 60, "the shell asks")
        screen.send_keys("echo helloo", Keys.BACKSPACE, Keys.ENTER)
        shown("hello")
        screen.send_keys(Keys.ARROW_UP, Keys.ENTER)
        shown("hello", 2)
        screen.send_keys("printf '\\033[31mred\\033[0m and not\\n'", Keys.ENTER)
        shown("red and not")
        screen.send_keys("sleep 1000", Keys.ENTER)
        shell = shell_of(site)
        eventually(lambda: sleeping(shell), 60, "the program runs")
        screen.send_keys(Keys.CONTROL, "c")
        eventually(lambda: not sleeping(shell), 60, "the program has ended")
        screen.send_keys("echo bye", Keys.ENTER)
        shown("bye")
        ARTIFACTS.mkdir(exist_ok=True)
        # docs/recipes.png: without the bar of the window.
        browser.execute_script("document.documentElement.style.scrollbarWidth = 'none'")
        browser.save_screenshot(str(ARTIFACTS / "recipes-terminal.png"))
        screen.send_keys("exit", Keys.ENTER)
        eventually(lambda: state.text.endswith("closed: 1000 the shell has ended"), 60, "the end")
        assert browser.get_log("browser") == []

"""`manage.py websocket_client`: what is typed, shown, recorded and replayed."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import pty
import re
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from django.contrib.auth import BACKEND_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.cache import SessionStore
from django.core.management import CommandError, call_command
from django.db.models import UUIDField
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from dwebsocket.management.commands.websocket_client import Command
from dwebsocket.management.terminal import lines, recording, writing
from dwebsocket.management.terminal.conversation import Conversation
from dwebsocket.management.terminal.sign_in import session_of
from support.far_server import far_server
from support.hostile import Hostile, accepting
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.contrib.auth.models import User
    from typing_extensions import Self
    from websockets.sync.server import ServerConnection


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """A server that echoes."""
    with far_server() as url:
        yield url


class Typed(io.StringIO):
    """Lines that are typed; behind them so many messages are waited for."""

    def __init__(self, typed: str, shown: io.StringIO, answers: int) -> None:
        super().__init__(typed)
        self._shown, self._answers = shown, answers

    def __next__(self) -> str:
        """Give a line, or find their end."""
        line = self.readline()
        if not line:
            eventually(lambda: f"\n{self._shown.getvalue()}".count("\n<") >= self._answers)
            raise StopIteration
        return line


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Run the command with lines on its standard input, and give those that it prints."""

    def run(url: str, typed: str = "", answers: int | None = None, **options: Any) -> list[str]:
        out = io.StringIO()
        monkeypatch.setattr("sys.stdin", Typed(typed, out, answers or 0))
        # Without answers to wait for, the server closes.
        linger = 60.0 if answers is None else 0.1
        options = {"linger": linger, "no_color": True, **options}
        call_command(Command(), url, stdout=out, **options)
        return out.getvalue().splitlines()

    return run


def test_lines_are_sent_and_answers_shown(echo: str, talk: Callable[..., list[str]]) -> None:
    """Commands begin with a slash."""
    shown = talk(echo, 'hello\n//slash\n/binary 00 ff\n\n/ping\n{"a": [1, "b"]}\n', answers=4)
    assert shown[0] == "! open (compressed); /help for help"
    assert shown[-1] == "! closed with 1000"
    answers = "\n".join(line for line in shown if not line.startswith("!"))
    assert answers == (
        '< hello\n< /slash\n< [2 bytes] 00 ff\n< {\n    "a": [\n      1,\n      "b"\n    ]\n  }'
    )
    assert sum("pong after" in line for line in shown) == 1


def test_wrong_commands_say_so(echo: str, talk: Callable[..., list[str]]) -> None:
    """And end nothing."""
    typed = "/what\n/help\n/binary xyz\n/close 1005\n/close x\nstill here\n"
    shown = talk(echo, typed, answers=1)
    assert "! /what: unknown; try /help" in shown
    assert "  /ping             send a ping, and show how long its answer takes" in shown
    assert any(line.startswith("! /binary: non-hexadecimal") for line in shown)
    assert any(line.startswith("! /close: close code 1005 must not be sent") for line in shown)
    assert "< still here" in shown


def test_close_has_a_code_and_a_reason(talk: Callable[..., list[str]]) -> None:
    """Lines behind it are not sent."""
    closes: list[object] = []
    is_over = threading.Event()

    def note(connection: ServerConnection) -> None:
        with pytest.raises(ConnectionClosedError):
            connection.recv()
        closes.append((connection.close_code, connection.close_reason))
        is_over.set()

    with far_server(note) as url:
        shown = talk(url, "/close 4001 so long\nnever sent\n")
        assert is_over.wait(20)
    assert closes == [(4001, "so long")]
    assert shown[-1] == "! closed with 4001: so long"


def test_what_a_server_sends_does_not_change_the_terminal(talk: Callable[..., list[str]]) -> None:
    """Neither messages, nor the reason of a close, nor the body of a refusal."""
    escape = b"\x1b[2J"

    def open_and_close(request: bytes) -> Iterator[bytes]:
        close = b"\x0f\xa1" + escape
        yield accepting(request) + b"\x81\x04" + escape + bytes((0x88, len(close))) + close

    with Hostile(open_and_close) as server:
        assert talk(server.url())[1:] == ["< \\x1b[2J", "! closed with 4001: \\x1b[2J"]
    refusal = b"HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\n" + escape
    with Hostile(lambda _: iter([refusal])) as server, pytest.raises(CommandError) as refused:
        talk(server.url())
    assert str(refused.value) == "the server refused the WebSocket with 403 No\n  \\x1b[2J"


def test_half_a_character_in_json_is_shown_as_it_was_written() -> None:
    """No terminal can show it: what comes after it would not be shown, either."""
    shown = writing.shown(r'{"half": "\ud83d", "whole": "\ud83d\ude00"}', colour=False)
    assert shown.encode().decode().split() == r'{ "half": "\ud83d", "whole": "😀" }'.split()


def test_no_line_of_a_server_looks_like_one_of_ours(talk: Callable[..., list[str]]) -> None:
    """Neither in a message nor in the reason of a close, nor is any turned around."""

    def open_and_close(request: bytes) -> Iterator[bytes]:
        text = "hi\n> sent\u2028! closed \u202eeno".encode()
        close = b"\x0f\xa1\n! open"
        yield accepting(request) + bytes((0x81, len(text))) + text
        yield bytes((0x88, len(close))) + close

    with Hostile(open_and_close) as server:
        shown = talk(server.url())
    assert shown[1:] == [
        *("< hi", "  > sent\\u2028! closed \\u202eeno"),
        *("! closed with 4001: ", "  ! open"),
    ]


@pytest.mark.parametrize("unit", [b"<title", b"<title>", b"</title", b"<"])
def test_a_page_that_is_made_to_take_long(talk: Callable[..., list[str]], unit: bytes) -> None:
    """Its title is found, or not, in no time."""
    page = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\n" + (unit * 2**16)[: 2**16]
    with Hostile(lambda _: iter([page])) as server:
        before = time.process_time()
        with pytest.raises(CommandError, match="404 Not Found"):
            talk(server.url())
        assert time.process_time() - before < 2


def test_the_answer_to_a_late_line_is_awaited() -> None:
    """The time before it closes begins with the last message, sent or received."""
    waits: list[float] = []

    class Silent:
        closed, close_code, close_reason = False, 1000, ""

        def __iter__(self) -> Iterator[str]:
            return iter(())

        def send(self, message: str) -> None:
            """Take it."""

        def close(self) -> None:
            """Be closed."""

        def wait_closed(self, timeout: float) -> bool:
            waits.append(timeout)
            return True

    talks = Conversation(cast("Any", Silent()), lambda *_: None)
    talks._active_at -= 100
    talks.talk(["hello"])
    talks.finish(60)
    assert [left > 30 for left in waits] == [True]


def test_a_conversation_is_recorded_and_replayed(
    echo: str, talk: Callable[..., list[str]], tmp_path: Path
) -> None:
    """With its pauses; the second file says the same as the first."""
    first, second = tmp_path / "first", tmp_path / "second"
    talk(echo, "grüße\n/binary 00 ff\n", answers=2, record=str(first))
    entries = [json.loads(line) for line in first.read_text().splitlines()]
    sent = [entry for entry in entries if entry["by"] == "client"]
    assert [entry.get("text", entry.get("base64")) for entry in sent] == ["grüße", "AP8="]
    assert len(entries) == 4
    shown = talk(echo, replay=str(first), record=str(second), linger=3.0)
    assert {"> grüße", "< grüße", "> [2 bytes] 00 ff"} <= set(shown)

    def contents(path: Path) -> list[tuple[object, ...]]:
        lines = map(json.loads, path.read_text().splitlines())
        return sorted((e["by"], e.get("text", ""), e.get("base64", "")) for e in lines)

    assert contents(first) == contents(second)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("no json", "line 1: Expecting value"),
        ("[]", 'line 1: it has no "by"'),
        ('{"by": "client"}', 'line 1: it has no "at"'),
        ('{"by": "client", "at": -1}', 'line 1: it has no "at"'),
        ('{"by": "client", "at": 0}', 'line 1: it has neither "text" nor "base64"'),
        ('{"by": "client", "at": 0, "base64": "x"}', 'line 1: its "base64" is none'),
        ('{"by": "client", "at": 0, "text": "\\ud800"}', 'line 1: its "text" is none'),
        ('{"by": "client", "at": Infinity, "text": ""}', 'line 1: it has no "at"'),
        pytest.param("[" * 100_000, "line 1: it is nested too deeply", id="deep"),
    ],
)
def test_a_file_that_is_no_recording(
    echo: str, talk: Callable[..., list[str]], tmp_path: Path, line: str, reason: str
) -> None:
    """Names its line, before anything is connected."""
    path = tmp_path / "file"
    path.write_text(f"{line}\n")
    with pytest.raises(CommandError, match=reason):
        talk(echo, replay=str(path))
    with pytest.raises(CommandError, match="No such file"):
        talk(echo, replay=str(tmp_path / "nothing"))


def test_the_request_has_the_options(talk: Callable[..., list[str]]) -> None:
    """Origin, subprotocols and headers."""
    seen = []

    def tell(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append(connection.request.headers)

    with far_server(tell, subprotocols=["chat"]) as url:
        shown = talk(
            url,
            origin="https://example.com",
            subprotocol=["chat"],
            header=["X-One: 1", "Cookie: a=b"],
            no_compression=True,
            proxy="none",
        )
        with pytest.raises(CommandError, match="'X-One' is no header: write 'Name: value'"):
            talk(url, header=["X-One"])
        compressed = talk(url, subprotocol=["chat"], proxy="none")
    assert shown[0] == "! open (subprotocol chat); /help for help"
    assert compressed[0] == "! open (subprotocol chat, compressed); /help for help"
    headers, _ = seen
    assert headers["Origin"] == "https://example.com"
    assert (headers["X-One"], headers["Cookie"]) == ("1", "a=b")
    assert "Sec-WebSocket-Extensions" not in headers


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (b"302 Found\r\nLocation: /log-in/", "302 Found: it redirects to /log-in/"),
        (
            b"404 Not Found\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<!DOCTYPE html><html>"
            b"<head><style>a {}</style><title>Page not found\n at &lt;b&gt;</title></head></html>",
            "404 Not Found\n  Page not found at <b>",
        ),
        (b"502 Bad\r\nContent-Type: text/html\r\n\r\n<p>no title", "502 Bad"),
        (
            b"409 Conflict\r\nContent-Type: text/plain\r\n\r\n" + b"x" * 999,
            "409 Conflict\n  " + "x" * 500,
        ),
    ],
)
def test_a_refusal_is_explained(talk: Callable[..., list[str]], answer: bytes, shown: str) -> None:
    """By where it redirects to, the title of its page, or its text."""
    answer = b"HTTP/1.1 " + answer + (b"" if b"\r\n\r\n" in answer else b"\r\n\r\n")
    with Hostile(lambda _: iter([answer])) as server, pytest.raises(CommandError) as refused:
        talk(server.url())
    assert str(refused.value) == f"the server refused the WebSocket with {shown}"


class TestSession:
    """`--session`."""

    def test_signs_in_with_debug_only(
        self, echo: str, talk: Callable[..., list[str]], override: Callable[..., None]
    ) -> None:
        """And never for another machine."""
        override(DEBUG=False)
        with pytest.raises(CommandError, match="--session works with DEBUG = True only"):
            talk(echo, session="anna")
        override(DEBUG=True)
        with pytest.raises(CommandError, match="--session sends a session to this machine only"):
            talk("ws://example.com/", session="anna")
        with pytest.raises(CommandError, match="--session sends a session to no --proxy"):
            talk(echo, session="anna", proxy="http://127.0.0.1:1")

    @pytest.fixture
    def _debug(self, override: Callable[..., None]) -> None:
        override(DEBUG=True)

    @pytest.mark.usefixtures("_debug")
    def test_is_not_sent_to_the_environments_proxy(
        self,
        talk: Callable[..., list[str]],
        anna: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Neither is it an error that there is one."""
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        with far_server(lambda connection: connection.close(4000, "enough")) as url:
            for options in ({}, {"proxy": "none"}):
                assert talk(url, session="anna", **options)[-1] == "! closed with 4000: enough"

    @pytest.mark.usefixtures("_debug")
    def test_a_name_that_is_no_key(
        self,
        echo: str,
        talk: Callable[..., list[str]],
        anna: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Of a model whose primary key is a UUID."""
        with monkeypatch.context() as keys:
            keys.setattr(anna._meta.pk, "get_prep_value", UUIDField().get_prep_value)
            with pytest.raises(CommandError, match="--session: there is no user 'nobody'"):
                talk(echo, session="nobody")

    @pytest.mark.usefixtures("_debug")
    def test_the_session_is_the_users_and_is_deleted(
        self, talk: Callable[..., list[str]], anna: User
    ) -> None:
        """By the name, or by the primary key."""
        seen: list[tuple[str, object]] = []

        def tell(connection: ServerConnection) -> None:
            assert connection.request is not None
            name, _, key = connection.request.headers["Cookie"].partition("=")
            seen.append((name, SessionStore(key).get(SESSION_KEY)))
            seen.append((key, None))

        with far_server(tell) as url:
            for user in ("anna", str(anna.pk)):
                talk(url, session=user)
            with pytest.raises(CommandError, match="--session: there is no user 'nobody'"):
                talk(url, session="nobody")
        assert seen[0] == seen[2] == ("sessionid", str(anna.pk))
        assert not any(SessionStore().exists(key) for key, _ in (seen[1], seen[3]))

    def test_the_session_is_of_a_backend_that_knows_the_user(
        self, anna: User, override: Callable[..., None]
    ) -> None:
        """django-axes has one first that knows nobody, and only refuses."""
        known = "django.contrib.auth.backends.ModelBackend"
        override(AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.BaseBackend", known])
        with session_of(anna) as cookie:
            assert SessionStore(cookie.partition("=")[2])[BACKEND_SESSION_KEY] == known


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"timeout": -1}, "--timeout must be 0 or more.* not -1"),
        ({"timeout": math.nan}, "--timeout must be 0 or more.* not nan"),
        ({"linger": math.inf}, "--linger must be 0 or more.* not inf"),
        ({"cafile": "/nowhere"}, "--cafile: .*No such file"),
        ({"cafile": "/dev/null"}, "--cafile: .*there is none in the file"),
        ({"cert": "/nowhere"}, "--cert: .*No such file"),
        ({"proxy": "socks5://x"}, "--proxy: .* or use --proxy none to connect directly"),
    ],
)
def test_wrong_options_are_named(
    talk: Callable[..., list[str]], options: dict[str, Any], reason: str
) -> None:
    """By the command's own names."""
    with pytest.raises(CommandError, match=reason):
        talk("wss://localhost:1/", **options)


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_input_that_is_no_text(echo: str, monkeypatch: pytest.MonkeyPatch, errors: str) -> None:
    """Whether the locale has such bytes refused or kept."""
    typed = io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8", errors=errors)
    monkeypatch.setattr("sys.stdin", typed)
    with pytest.raises(CommandError, match=r"the standard input is no text: .*codec can't"):
        call_command(Command(), echo, stdout=io.StringIO())


def test_json_is_coloured() -> None:
    """Keys, texts, words and numbers; other text is left alone."""
    coloured = writing.shown('{"a": "b", "c": [1.5, true]}', colour=True)
    for colour, token in ((34, '"a"'), (32, '"b"'), (36, "1.5"), (35, "true")):
        assert f"\x1b[{colour}m{token}\x1b[0m" in coloured
    assert writing.shown("[no json 1", colour=True) == "[no json 1"
    assert writing.shown("plain 1", colour=True) == "plain 1"
    assert writing.shown(bytes(100), colour=True).endswith("00…")
    nested = "[" * 100_000
    assert writing.shown(nested, colour=True) == nested


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The keys of a terminal, for prompt_toolkit; the history is in a folder of the test."""
    pytest.importorskip("prompt_toolkit")
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    monkeypatch.setattr(lines, "_HISTORY", tmp_path / "history")
    stdin = io.StringIO()
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", stdin)
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe


_PROGRAM = """
import sys, django
from django.conf import settings
from django.core.management import call_command
settings.configure(INSTALLED_APPS=["dwebsocket"])
django.setup()
call_command("websocket_client", sys.argv[1])
"""


class Terminal:
    """The command in a process of its own, at a terminal; use as a context manager."""

    def __init__(self, url: str, home: Path) -> None:
        self._terminal, own = pty.openpty()
        self._shown = ""
        # It answers no question of where its cursor is.
        environ = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "HOME": str(home)}
        command = [sys.executable, "-c", _PROGRAM, url]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **environ},
            stdin=own,
            stdout=own,
            stderr=own,
            start_new_session=True,
        )
        os.close(own)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait(60)
        os.close(self._terminal)

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._terminal, text.encode())

    def reads(self, pattern: str) -> None:
        """Wait until something like this is shown behind what was waited for before."""

        def is_shown() -> bool:
            if select.select([self._terminal], [], [], 0)[0]:
                self._shown += os.read(self._terminal, 65536).decode()
            found = re.search(pattern, self._shown, re.DOTALL)
            self._shown = self._shown[found.end() :] if found else self._shown
            return found is not None

        eventually(is_shown, what=f"{pattern!r} is shown")


class TestTerminal:
    """With prompt_toolkit."""

    def test_lines_can_be_edited(self, keys: Any, tmp_path: Path) -> None:
        """With a history in a file."""
        # A wrong letter is taken back, and one is put at the beginning.
        keys.send_text("ellp\x7fo\x01h\r\x04")
        assert list(lines.TypedLines(plain=False)) == ["hello"]
        assert "+hello" in (tmp_path / "history").read_text()
        assert (tmp_path / "history").stat().st_mode & 0o077 == 0

    @pytest.mark.parametrize("home", ["~nobody-of-this-name", "/proc"], ids=["none", "no right"])
    def test_no_home_means_no_history(
        self, keys: Any, monkeypatch: pytest.MonkeyPatch, home: str
    ) -> None:
        """As of a user of a container without an entry in passwd, or without a folder."""
        monkeypatch.setattr(lines, "_HISTORY", Path(home) / ".history")
        keys.send_text("hello\r\x04")
        assert list(lines.TypedLines(plain=False)) == ["hello"]

    def test_the_end_of_the_connection_ends_the_prompt(self, keys: Any) -> None:
        """No key is needed for that."""
        out = io.StringIO()
        with far_server(lambda connection: connection.close(4000, "enough")) as url:
            call_command(Command(), url, stdout=out, no_color=True)
        assert out.getvalue().splitlines()[1:] == ["! closed with 4000: enough"]

    def test_what_comes_stands_above_the_line_that_is_typed(self, tmp_path: Path) -> None:
        """The line is drawn again below it."""
        pytest.importorskip("prompt_toolkit")
        news = threading.Event()

        def tell(connection: ServerConnection) -> None:
            news.wait(60)
            connection.send("news")
            connection.send(connection.recv())

        with far_server(tell) as url, Terminal(url, tmp_path) as terminal:
            terminal.type("hal")
            terminal.reads(">.*hal")
            news.set()
            # Without erasing, the news would stand in the line, and `hal` only once.
            terminal.reads("news.*>.*hal")
            terminal.type("lo\r")
            terminal.reads("<.*hallo")

    def test_lines_that_were_stopped_before_they_began(self, keys: Any) -> None:
        """The connection may end before the first prompt."""
        typed = lines.TypedLines(plain=False)
        typed.stop()
        assert list(typed) == []

    @pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["interrupt", "end of input"])
    def test_a_server_that_goes_on_talking_can_be_left(self, keys: Any, key: str) -> None:
        """At once: its next message is not waited for."""
        is_left = threading.Event()

        def talk_on(connection: ServerConnection) -> None:
            with contextlib.suppress(ConnectionClosed):
                connection.send("once")
                keys.send_text(key)
                while not is_left.wait(0.05):
                    connection.send("more")

        out = io.StringIO()
        with far_server(talk_on) as url:
            call_command(Command(), url, stdout=out, no_color=True, linger=60)
            is_left.set()
        assert "! closed with 1000" in out.getvalue()


def test_an_entry_is_the_same_behind_a_file() -> None:
    """Text and bytes."""
    for message in ("text", b"\x00"):
        entry = recording.Entry(1.5, "server", message)
        assert recording.Entry.parse(entry.line()) == entry

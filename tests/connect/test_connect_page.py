"""docs/connect.md and docs/commands.md: each block of code runs, and the tables are complete."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from websockets.typing import Subprotocol

from dwebsocket import ClientConnection, aconnect, connect
from dwebsocket.client.options import _DEFAULTS
from dwebsocket.management.commands import (
    websocket_client,
    websocket_doctor,
    websocket_load,
    websocket_stats,
)
from support.far_server import far_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from websockets.sync.server import ServerConnection

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
CONNECT, COMMANDS = (DOCS / f"{name}.md" for name in ("connect", "commands"))
BLOCKS = re.findall(r"^```python\n(.*?)^```$", CONNECT.read_text(), re.DOTALL | re.MULTILINE)


def serve(connection: ServerConnection) -> None:
    """Echo, or send three messages and close."""
    assert connection.request is not None
    if connection.request.path == "/three/":
        for number in range(3):
            connection.send(str(number))
        connection.close(4000, "that was all")
    else:
        for message in connection:
            connection.send(message)


def choose(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Take what is offered: most blocks offer nothing."""
    return Subprotocol("v1.chat") if "v1.chat" in offered else None


async def fetch_token() -> str:
    """Stands for a function of the reader's."""
    return "token"


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The site of the page."""
    with far_server(serve, subprotocols=["v1.chat"], select_subprotocol=choose) as url:
        yield url.removeprefix("ws://")


def test_there_are_blocks() -> None:
    """Without them the next test would run none."""
    assert len(BLOCKS) > 5


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number: int, site: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the names of those before it, against a server of `websockets`."""
    code = re.sub(r"wss://((?:\S+@)?)example\.com/", rf"ws://\g<1>{site}/", BLOCKS[number])
    names: dict[str, Any] = {"connect": connect, "aconnect": aconnect, "fetch_token": fetch_token}
    compiled = compile(code, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    made = eval(compiled, names)
    if inspect.iscoroutine(made):
        asyncio.run(made)
    shown = capsys.readouterr().out
    expected = ["hello\n", "hello\n", "0\n1\n2\n4000 that was all\n", "{'subscribe': 'prices'}\n",
                "0\n1\n2\n", "0\n1\n2\n", "v1.chat\n"]  # fmt: skip
    assert shown == expected[number]


def test_commands_are_all_there() -> None:
    """Each has a section."""
    folder = Path(websocket_client.__file__).parent
    names = {path.stem for path in folder.glob("websocket_*.py")}
    assert set(re.findall(r"^## (\w+)$", COMMANDS.read_text(), re.MULTILINE)) == names


def test_options_are_all_there() -> None:
    """In their order, with their defaults."""
    section = CONNECT.read_text().partition("\n## Options\n")[2]
    named = re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)))
    assert named == [*_DEFAULTS, "reconnect"]
    for name in ("open_timeout", "send_timeout", "close_timeout"):
        row = re.search(rf"^\| `{name}` \| (\S+) \|", section, re.MULTILINE)
        assert row is not None
        assert float(row[1]) == _DEFAULTS[name]


def test_methods_are_all_there() -> None:
    """Each public one stands on the page."""
    text = CONNECT.read_text()
    public = {name for name in vars(ClientConnection) if not name.startswith("_")}
    missing = {name for name in public if not re.search(rf"`{name}\b", text)}
    assert missing == set()


@pytest.mark.parametrize(
    "command", [websocket_client, websocket_load, websocket_stats, websocket_doctor]
)
def test_options_of_commands_are_all_there(command: Any) -> None:
    """And no others."""
    name = command.__name__.rpartition(".")[2]
    section = COMMANDS.read_text().partition(f"## {name}\n")[2].partition("\n## ")[0]
    parser = command.Command().create_parser("manage.py", name)
    own = {
        option
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--")
    }
    django = {
        *("--help", "--version", "--verbosity", "--settings", "--pythonpath", "--traceback"),
        *("--no-color", "--force-color", "--skip-checks"),
    }
    shared = {
        *("--origin", "--subprotocol", "--header", "--cafile", "--insecure", "--cert"),
        *("--proxy", "--no-compression", "--timeout"),
    }
    named = set(re.findall(r"(?<=`)--[\w-]+", section))
    wanted = own - django
    assert named == (wanted - shared if command is websocket_load else wanted)

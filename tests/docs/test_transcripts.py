"""docs/commands.md: what it shows of a terminal is what the commands print."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import pytest
from django.core.management import call_command

from dwebsocket.management.commands import websocket_client, websocket_load
from support.commands import check, lines_of, words_of
from support.far_server import far_server
from support.pages import block
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = "docs/commands.md"


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """Run a server that echoes."""
    with far_server() as url:
        yield f"{url}/echo/"


class Typing:
    """Standard input: types a line when all that stands above it has been printed."""

    def __init__(self, lines: list[str], out: io.StringIO) -> None:
        self._lines, self._out = lines, out

    def isatty(self) -> bool:
        """Be no terminal."""
        return False

    def __iter__(self) -> Iterator[str]:
        printed = 0
        for line in self._lines:
            if line[0] in "!<":
                printed += 1
                continue
            eventually(lambda n=printed: self._out.getvalue().count("\n") >= n)
            yield f"{line}\n"


def without_numbers(lines: list[str]) -> list[str]:
    """Times and counts are those of a machine."""
    return [re.sub(r"\d+(\.\d+)?", "N", re.sub(" +", " ", line)) for line in lines]


def test_client(echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed lines stand between the printed ones."""
    command, *lines = block(PAGE, "websocket_client ws://", "").splitlines()
    check([command.removeprefix("$ ")])
    shown = [line for line in lines if line[0] in "!<"]
    out = io.StringIO()
    monkeypatch.setattr("sys.stdin", Typing(lines, out))
    call_command(websocket_client.Command(), echo, stdout=out, no_color=True)
    # The close code is no measurement.
    assert out.getvalue().splitlines()[-1] == shown[-1]
    assert without_numbers(out.getvalue().splitlines()) == without_numbers(shown)


def test_load(echo: str) -> None:
    """With fewer clients than the page has."""
    text = block(PAGE, "websocket_load ws://", "")
    (command,) = lines_of(text)
    check([command])
    assert words_of(command)[-4:] == ["--clients", "500", "--rate", "10"]
    out = io.StringIO()
    call_command(
        websocket_load.Command(), echo, clients=2, rate=10, seconds=0.3, ramp=0, stdout=out
    )
    assert without_numbers(out.getvalue().splitlines()) == without_numbers(text.splitlines()[1:])

"""Commands on pages: programs, files and options that they name are there."""

from __future__ import annotations

import pytest
from executed import EXECUTED, SHELL

from support.commands import check, lines_of
from support.pages import Block, blocks

#: Blocks without a language are commands, too, unless they begin like none.
NOT_SHELL = ("ACL ", "example.com {", "net.core", "sum(", "?: ")


def commands() -> list[Block]:
    """Give the blocks of the pages that the registry leaves to this file."""
    return [
        each
        for page, languages in EXECUTED.items()
        for each in blocks(page)
        if SHELL in languages.get(each.language, {}) and not each.text.startswith(NOT_SHELL)
    ]


def test_these_are_all() -> None:
    """As many as the registry says."""
    registered = sum(
        tests[SHELL] for page in EXECUTED.values() for tests in page.values() if SHELL in tests
    )
    assert len(commands()) == registered


@pytest.mark.parametrize("block", commands(), ids=str)
def test_commands(block: Block) -> None:
    """Each of them could be run."""
    lines = list(lines_of(block.text))
    assert lines
    check(lines)


@pytest.mark.parametrize(
    "wrong",
    [
        "python manage.py websocket_docter",
        "python manage.py websocket_doctor --urls x",
        "python bench/larger.py",
        "python bench/run.py --nothing",
        "gunicorn --threats 4 project.wsgi",
        "uvicorn --ws none --nothing main:app",
        "waitress-serve --threats 4 project.wsgi:application",
        "uwsgi --http-sockets :8000",
        "pip install dwebsocket3",
        'pip install "dwebsocket2[nothing]"',
        "make nothing",
        "make test NOTHING=1",
        "telnet example.com",
        ".ci/nothing",
    ],
)
def test_wrong_ones_are_found(wrong: str) -> None:
    """Else these tests could not fail."""
    with pytest.raises(AssertionError):
        check([wrong])

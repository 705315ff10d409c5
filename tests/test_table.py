"""The table of servers in docs/deployment.md is compared with the results of the suite."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

import table
from support.selection import VARIANTS, WHOLE
from support.server import ASGI, SERVERS
from support.wsgi_kinds import WSGI_SERVERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TESTS = {
    "messages": "tests/servers/test_contract.py::TestMessages::test_text_is_echoed",
    "closing": "tests/servers/test_contract.py::TestEnds::test_by_the_view",
    "SIGTERM": "tests/servers/test_contract.py::test_process_stops",
}
# Of each server and feature: tests that passed, tests that are expected to fail.
FOUND = {
    "cheroot": {"messages": [9, 0], "closing": [3, 2], "SIGTERM": [0, 1]},
    "werkzeug": {"messages": [9, 0]},
    "werkzeug-one-thread": {"messages": [8, 1]},
}


def reports() -> Iterator[dict[str, object]]:
    """The reports of such a run, each of a test that passed with one of its fixtures."""
    for server, features in FOUND.items():
        for feature, (passed, unable) in features.items():
            report = {"nodeid": TESTS[feature], "user_properties": [["server", server]]}
            setup = {**report, "when": "setup", "outcome": "passed"}
            yield from [setup, {**report, "when": "call", "outcome": "passed"}] * passed
            yield from [{**report, "when": "call", "outcome": "skipped", "wasxfail": "x"}] * unable
    yield {"nodeid": "tests/test_other.py::test_it", "when": "call", "outcome": "failed"}
    yield {"$report_type": "SessionFinish", "exitstatus": 1}


@pytest.fixture
def outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The reports of a run, and a page with a table of them."""
    path = tmp_path / "extended.jsonl"
    path.write_text("\n".join(map(json.dumps, reports())))
    monkeypatch.setattr(table, "PAGE", tmp_path / "page.md")
    table.PAGE.write_text(f"before\n{table.BEGIN}\n{table.END}\nafter\n")
    assert table.main([str(path)]) == 0
    return str(path)


def test_each_server_is_in_one_row() -> None:
    """No result of the suite is without a place in the table."""
    kinds = {
        str(kind)
        for kind in (*SERVERS, *WSGI_SERVERS, *ASGI)
        if not VARIANTS.fullmatch(str(kind)) and (kind in WHOLE or not kind.tls)
    }
    rows = {
        kind: sum(re.fullmatch(pattern, kind) is not None for _, _, pattern in table.ROWS)
        for kind in kinds
    }
    assert {kind: count for kind, count in rows.items() if count != 1} == {}


def test_written_table_is_right(outcomes: str) -> None:
    """All variants of a server count, and the rest of the page stays."""
    text = table.PAGE.read_text()
    assert "| [cheroot](servers/cheroot.md) | yes | - | - | - | partly | - | - | - | no |" in text
    assert "| [Werkzeug (`runserver_plus`)](servers/werkzeug.md) | partly | - |" in text
    assert "[uWSGI, one thread](servers/uwsgi.md); [uWSGI behind its router](servers/" in text
    assert (text[:7], text[-6:]) == ("before\n", "after\n")
    assert table.main(["--check", outcomes]) == 0


def test_what_was_not_run_is_not_compared(outcomes: str) -> None:
    """A run of some servers, or of some tests, says nothing about the others."""
    text = table.PAGE.read_text().replace(
        "| partly | - | - | - | no |", "| partly | - | - | yes | no |"
    )
    table.PAGE.write_text(text)
    assert table.main(["--check", outcomes]) == 0


def test_what_variants_lack_is_seen_by_a_whole_run_alone(outcomes: str) -> None:
    """Any other run leaves out variants, and finds `yes` where the page says `partly`."""
    text = table.PAGE.read_text()
    row = next(line for line in text.splitlines() if "cheroot" in line)
    table.PAGE.write_text(text.replace(row, row.replace("| yes |", "| partly |", 1)))
    assert table.main(["--check", outcomes]) == 0
    assert table.main(["--check", "--whole", outcomes]) == 1


def test_wrong_cell_is_named(outcomes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The message has the cell, the result, and the way to write the table anew."""
    text = table.PAGE.read_text().replace("| partly | - | - | - | no |", "| yes | - | - | - | no |")
    table.PAGE.write_text(text)
    assert table.main(["--check", outcomes]) == 1
    said = capsys.readouterr().err
    assert "cheroot.md), closing: it says 'yes', the suite found 'partly'" in said
    assert f"python tests/table.py {outcomes}" in said
    assert len(said.splitlines()) == 2


def test_missing_row_is_named(outcomes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each cell of it that was found is one that differs."""
    lines = table.PAGE.read_text().splitlines()
    table.PAGE.write_text("\n".join(line for line in lines if "cheroot" not in line))
    assert table.main(["--check", outcomes]) == 1
    assert "cheroot.md), messages: it says 'nothing'" in capsys.readouterr().err

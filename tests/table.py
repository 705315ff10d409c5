"""
Writes the table of servers in docs/deployment.md from the reports of the suite.

    make test-all EVERY=1                         # or pytest tests/servers --report-log=FILE
    python tests/table.py .cache/reports/*.jsonl  # which `make test-all` writes
    python tests/table.py --check FILE …          # fails if a cell is not what was found
    python tests/table.py --check --whole FILE …  # the same, for the files of a run with EVERY=1

A cell is `yes` when every test of the feature passed on every variant of the server, `partly` when
some are expected to fail (the page beside the server says which and why), `no` when all are, and
`-` when none was run. Servers with the same cells share a row.
"""

from __future__ import annotations

import re
import sys
from itertools import zip_longest
from pathlib import Path

from support import outcome
from support.outcome import FEATURES

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "deployment.md"
BEGIN, END = "<!-- table of servers: tests/table.py -->", "<!-- end of the table -->"

# Server, its page, and the kinds of the suite that are variants of it.
ROWS = [
    ("Django `runserver`", "", r"runserver(-nothreading)?"),
    ("gunicorn `sync`, `gthread`", "", r"gunicorn-(sync|gthread)(-unix)?"),
    ("gunicorn `gevent`, gevent's own", "gevent", r"gunicorn-gevent(_pywsgi)?|gevent-server-.*"),
    ("gunicorn `eventlet`, eventlet's own", "eventlet", r"(gunicorn-)?eventlet-(25|server).*"),
    ("uWSGI, two threads or gevent", "uwsgi", r"uwsgi-(http.*socket|lazy-apps|nginx|gevent)"),
    ("uWSGI, one thread", "uwsgi", r"uwsgi-one-thread"),
    ("uWSGI behind its router", "uwsgi", r"uwsgi-router"),
    ("Werkzeug (`runserver_plus`)", "werkzeug", r"werkzeug(-one-thread)?"),
    ("cheroot", "cheroot", r"cheroot"),
    ("waitress", "waitress", r"waitress"),
    ("uvicorn", "asgi", r"uvicorn-.*"),
    ("hypercorn", "asgi", r"hypercorn(-unix|-nginx)?"),
    ("daphne", "asgi", r"daphne(-unix|-nginx)?"),
    ("granian (ASGI)", "asgi", r"granian"),
    ("gunicorn `asgi`", "asgi", r"gunicorn-asgi(-unix|-nginx)?"),
    ("TLS in the server (gunicorn `gthread`)", "tls", r"gunicorn-gthread-tls"),
]  # fmt: skip


def cell(counts: list[list[int]]) -> str:
    """Give one cell from `[passed, unable]` of each variant."""
    passed, unable = (sum(each) for each in zip(*counts, strict=True)) if counts else (0, 0)
    if not passed:
        return "no" if unable else "-"
    return "partly" if unable else "yes"


def cells(outcomes: dict[str, dict[str, list[int]]]) -> dict[str, list[str]]:
    """Give the cells of each row, by the title that stands before them."""
    rows = {}
    for name, page, pattern in ROWS:
        variants = [found for kind, found in outcomes.items() if re.fullmatch(pattern, kind)]
        title = f"[{name}](servers/{page}.md)" if page else name
        rows[title] = [cell([v[feature] for v in variants if feature in v]) for feature in FEATURES]
    return rows


def table(rows: dict[str, list[str]]) -> str:
    """Give the table in Markdown."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for title, row in rows.items():
        alike.setdefault(tuple(row), []).append(title)
    lines = [f"| server | {' | '.join(FEATURES)} |", "|---" * (len(FEATURES) + 1) + "|"]
    lines += [f"| {'; '.join(titles)} | {' | '.join(row)} |" for row, titles in alike.items()]
    return "\n".join(lines)


def differences(written: str, rows: dict[str, list[str]], *, is_whole: bool) -> list[str]:
    """
    Say which cells of a table in Markdown are not those that were found; `-` matches any.

    A run that is not whole leaves out variants of servers, and does not see what these lack.
    """
    there: dict[str, list[str]] = {}
    for line in written.strip().splitlines():
        titles, *row = (part.strip() for part in line.strip().strip("|").split("|"))
        there |= dict.fromkeys(titles.split("; "), row)
    wrong = []
    if there.get("server") != list(FEATURES):
        wrong.append("the columns are others")
    for title, row in rows.items():
        old = there.get(title, [])
        for feature, before, found in zip_longest(FEATURES, old, row, fillvalue="nothing"):
            hidden = not is_whole and (before, found) == ("partly", "yes")
            if found not in ("-", before) and not hidden:
                wrong.append(f"{title}, {feature}: it says {before!r}, the suite found {found!r}")
    return wrong


def main(arguments: list[str]) -> int:
    """Rewrite the page, or only compare."""
    check, is_whole = "--check" in arguments, "--whole" in arguments
    sources = [argument for argument in arguments if not argument.startswith("--")]
    before, rest = PAGE.read_text().split(BEGIN)
    written, after = rest.split(END)
    rows = cells(outcome.read(map(Path, sources)))
    if not check:
        PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}")
        return 0
    wrong = differences(written, rows, is_whole=is_whole)
    for line in wrong:
        print(f"{PAGE.name}: {line}", file=sys.stderr)
    if wrong:
        print(f"To write it anew: python tests/table.py {' '.join(sources)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

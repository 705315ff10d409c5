"""
Writes the README's table of servers from what the suite has found.

    python -m pytest tests/servers --outcomes .cache/outcomes.json
    python tests/table.py .cache/outcomes.json            # or --check: fails if the README differs

A cell is `yes` when every test of the feature passed on every variant of the server, `partly` when
some are expected to fail (the page beside the server says which and why), `no` when all are.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from support.outcome import FEATURES

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- table of servers: tests/table.py -->", "<!-- end of the table -->"

# Server, its page, and the kinds of the suite that are variants of it.
ROWS = [
    ("Django `runserver`", "", r"runserver(-nothreading)?"),
    ("gunicorn `sync`, `gthread`", "", r"gunicorn-(sync|gthread)(-unix)?"),
    ("gunicorn `gevent`, gevent's own", "gevent", r"gunicorn-gevent(_pywsgi)?|gevent-server-.*"),
    ("gunicorn `eventlet`, eventlet's own", "eventlet", r"(gunicorn-)?eventlet-[\w.]+(?<!tls)"),
    ("uWSGI, two threads or gevent", "uwsgi", r"uwsgi-(http.*socket|lazy-apps|nginx|gevent)"),
    ("uWSGI, one thread", "uwsgi", r"uwsgi-one-thread"),
    ("uWSGI behind its router", "uwsgi", r"uwsgi-router"),
    ("Werkzeug (`runserver_plus`)", "werkzeug", r"werkzeug(-one-thread)?"),
    ("cheroot", "cheroot", r"cheroot"),
    ("waitress", "waitress", r"waitress"),
    ("uvicorn", "asgi", r"uvicorn-.*"),
    ("hypercorn", "asgi", r"hypercorn"),
    ("daphne", "asgi", r"daphne"),
    ("granian (ASGI)", "asgi", r"granian"),
    ("gunicorn `asgi`", "asgi", r"gunicorn-asgi"),
    ("TLS in the server (gunicorn `gthread`)", "tls", r"gunicorn-gthread-tls"),
]  # fmt: skip


def cell(counts: list[list[int]]) -> str:
    """Give one cell from `[passed, unable]` of each variant."""
    passed, unable = (sum(each) for each in zip(*counts, strict=True)) if counts else (0, 0)
    if not passed:
        return "no" if unable else "-"
    return "partly" if unable else "yes"


def table(outcomes: dict[str, dict[str, list[int]]]) -> str:
    """Give the table in Markdown."""
    lines = [f"| server | {' | '.join(FEATURES)} |", "|---" * (len(FEATURES) + 1) + "|"]
    for name, page, pattern in ROWS:
        variants = [found for kind, found in outcomes.items() if re.fullmatch(pattern, kind)]
        cells = [cell([v[feature] for v in variants if feature in v]) for feature in FEATURES]
        title = f"[{name}](docs/servers/{page}.md)" if page else name
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Rewrite the README, or only compare."""
    check = "--check" in arguments
    (source,) = [argument for argument in arguments if argument != "--check"]
    text = README.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    made = f"{before}{BEGIN}\n{table(json.loads(Path(source).read_text()))}\n{END}{after}"
    if check and made != text:
        print(f"the table of servers in {README.name} is not what the suite found", file=sys.stderr)
        return 1
    if not check:
        README.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

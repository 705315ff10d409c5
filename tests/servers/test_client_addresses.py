"""The senders whose `X-Forwarded-For` each server believes by its defaults."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import RawPeer
from support.server import ASGI, GREEN, MAIN, ROOT, Kind, Server
from support.wsgi_kinds import WSGI_SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable

MADE_UP = "192.0.2.99"
GUNICORN_UVICORN = Kind(
    "gunicorn-uvicorn",
    "asgi",
    (
        *("{python}", "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--log-level", "warning"),
        *("--worker-class", "uvicorn_worker.UvicornWorker", "--workers", "1"),
        "{module}.asgi:application",
    ),
)
KINDS = [*MAIN, *GREEN, *WSGI_SERVERS, *ASGI, GUNICORN_UVICORN]
# The client's address as the server sees it: this machine, where it may be a proxy.
LOCAL = ("127.0.0.1", "::ffff:127.0.0.1")
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_made_up_address_from_this_machine(own_server: Callable[..., Server], kind: Kind) -> None:
    """Only uvicorn, alone or as gunicorn's worker, takes it for the client's."""
    with RawPeer.open(
        own_server(kind), "/addresses/", headers={"X-Forwarded-For": MADE_UP}
    ) as peer:
        seen = json.loads(peer.read_message())["peer"]
    assert (seen == MADE_UP) is ("uvicorn" in kind.name)
    assert seen in (MADE_UP, *LOCAL)


def test_page_names_each() -> None:
    """That is the table of docs/security.md."""
    section = PAGE.partition("\n## Servers that believe X-Forwarded-For\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \|", section, re.MULTILINE)
    named = " ".join(rows).lower()
    families = {
        "runserver" if "runserver" in kind.name else re.split(r"[-_]", kind.name)[0]
        for kind in KINDS
    }
    assert {family for family in families if family not in named} == set()

"""Sentry, by its own package: what it gets of connections in which something fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from support.pages import ROOT

# What Sentry gets is found out once, on one worker of xdist.
pytestmark = [
    pytest.mark.extended("starts a process for each test"),
]

Events = list[dict[str, Any]]

#: Connections in which nothing fails.
QUIET = {"closes", "denied", "serves", "aserves", "traced"}
SERVERS = pytest.mark.parametrize("server", ["wsgi", "asgi"])


@pytest.fixture(scope="module")
def got() -> dict[str, dict[str, Events]]:
    """What Sentry gets of each connection, by the kind of server: docs/operations.md."""
    folders = [str(ROOT / each) for each in ("tests", "tests/unit", "tests/operations")]
    path = os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "tests/operations/sentry_program.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Events]] = json.loads(done.stdout)
    return found


def errors(events: Events) -> Events:
    """Give those that are no transactions."""
    return [event for event in events if event.get("type") != "transaction"]


def transactions(events: Events) -> list[tuple[str, str, int | None]]:
    """Give their operations, names, and the statuses of their responses."""
    return [
        (
            event["contexts"]["trace"]["op"],
            event["transaction"],
            event["contexts"].get("response", {}).get("status_code"),
        )
        for event in events
        if event.get("type") == "transaction"
    ]


def route(name: str) -> str:
    """Give that of a connection."""
    if name.startswith("room_"):
        return "/rooms/"
    return "/grouped/" if name.startswith(("websocket_", "group_")) else f"/{name}/"


@SERVERS
def test_what_fails_is_one_event(got: dict[str, dict[str, Events]], server: str) -> None:
    """Wherever it fails; and nothing is one where nothing does."""
    found = {name: len(errors(events)) for name, events in got[server].items()}
    assert found == {name: int(name not in QUIET) for name in found}
    assert QUIET < found.keys()


@SERVERS
def test_an_event_has_the_request_and_the_user(
    got: dict[str, dict[str, Events]], server: str
) -> None:
    """Those of its own connection, whatever else is open or was before."""
    found = {
        name: (event["request"]["url"], event["transaction"], event["user"]["username"])
        for name, events in got[server].items()
        for event in errors(events)
        if name != "threads"
    }
    assert found == {
        name: (f"http://testserver{route(name)}", route(name), "anna") for name in found
    }


@SERVERS
def test_cookies_are_no_part_of_it(got: dict[str, dict[str, Events]], server: str) -> None:
    """Nor of what our frames hold; an ASGI application has them among its own variables."""
    found = [name for name, events in got[server].items() if "verysecret" in json.dumps(events)]
    assert set(found) <= {"asgi_view"}


@SERVERS
def test_a_thread_that_lives_on_has_no_request(
    got: dict[str, dict[str, Events]], server: str
) -> None:
    """Sentry gives threads that of the code that starts them."""
    (event,) = errors(got[server]["threads"])
    assert event["message"] == "of a thread that lives on"
    assert not event.keys() & {"request", "user", "transaction"}


@SERVERS
def test_a_handshake_is_a_transaction(got: dict[str, dict[str, Events]], server: str) -> None:
    """It ends with the handshake: while the client is there. A message may have one of its own."""
    found = {name: transactions(events) for name, events in got[server].items()}
    refused = {"refuses", "handler_connect", "ahandler_connect"}
    expected = {
        name: [("http.server", route(name), 500 if name in refused else 101)] for name in found
    }
    if server == "asgi":
        expected["fallback"] = [("http.server", "/fallback/", None)]
    expected["traced"].append(("websocket.message", "Traced.receive", None))
    assert {name: sorted(each) for name, each in found.items()} == expected

"""
Which tests run: those of `make test`, those that `make test-all` adds, and each on which servers.

The basic tier needs what pip and cargo can install, and the servers that most projects run. A test
is in the extended tier when it is for another server, when it is marked with a part that it `needs`
beyond that, or when it is marked `extended`, with the reason. Tests that are marked `every`, which
take minutes or repeat what `make lint` does, wait for `--every-server`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from support import server as servers
from support import wsgi_kinds
from support.installed import is_here
from support.unable import why_unable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TIERS = ("basic", "extended")
BASIC_SERVERS = frozenset(
    {servers.RUNSERVER, servers.GUNICORN_SYNC, servers.GUNICORN_GTHREAD, servers.UVICORN}
)

# Behaviour that a variant of a server can break: finding the socket, early bytes, the 101, the end.
SECONDARY = servers.SECONDARY | wsgi_kinds.SECONDARY
CORE = {
    "test_contract.py": {
        "test_text_is_echoed",
        "test_a_mebibyte_is_echoed",
        "test_early_frames_are_kept_in_order",
        "test_response_is_what_the_rfc_asks_for",
        "test_headers_and_cookies_of_middleware_are_in_it",
        "test_by_the_client",
        "test_by_the_view",
        "test_session_is_saved",
        "test_process_stops",
    },
    "test_resources.py": {"test_views_end"},
    "test_clients.py": {"test_conversation"},
    "test_tutorials.py": set(),
    "test_handler_servers.py": {"test_echo_and_end", "test_connect_decides"},
    "test_handler_ends.py": {"test_the_process_ends"},
}
# Tests that take seconds and give the same on all variants: not run on these, unless asked.
HEAVY = {
    "test_tls.py": {"test_one_thread_with_tickets", "test_two_hundred_idle"},
    "test_uwsgi.py": {"test_sigint", "test_graceful_end", "test_without_teardown"},
}


def add_options(parser: pytest.Parser) -> None:
    """Add the options that choose tests; without any of them all tests run."""
    parser.addoption("--tier", choices=TIERS, help="only what `make test` runs, or only the rest")
    parser.addoption(
        "--every-server",
        action="store_true",
        help="the whole list of behaviours also on old versions and variants of servers, and the"
        " largest numbers of connections: most of an hour",
    )
    parser.addoption(
        "--core-on",
        metavar="SERVER,…",
        type=lambda names: set(names.split(",")),
        help="of all that concerns servers only the core of the lists, and only on these",
    )


def spread(metafunc: pytest.Metafunc) -> None:
    """
    Give `server` the kinds of the mark `on_servers` that the options ask for.

    Otherwise it is as `parametrize` with `indirect`. Thousands of tests that `select` would leave
    out are not even made.
    """
    for marker in metafunc.definition.iter_markers("on_servers"):
        is_asked = _condition(metafunc.config)
        asked = [kind for kind in marker.args if is_asked(metafunc.definition, [kind])]
        # pytest makes a test that it skips of an empty list. `select` leaves this one out.
        metafunc.parametrize("server", asked or marker.args[:1], indirect=True, ids=str)


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that the options ask for, and report the others as deselected."""
    is_asked = _condition(config)
    asked: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        (asked if is_asked(item, kinds_of(item)) else left_out).append(item)
    items[:] = asked
    config.hook.pytest_deselected(items=left_out)


def kinds_of(item: pytest.Item) -> list[servers.Kind]:
    """Return the kinds of servers that a test is for."""
    return [value for value in _params(item).values() if isinstance(value, servers.Kind)]


def skip_what_is_missing(item: pytest.Item) -> None:
    """Skip a test that needs what tests/setup has not installed."""
    for marker in item.iter_markers("needs"):
        for part in marker.args:
            if not is_here(part):
                item.add_marker(pytest.mark.skip(reason=f"{part} is missing; run tests/setup"))


def expect_what_it_cannot(item: pytest.Item) -> None:
    """Mark a test that its server is known to fail, with the reason."""
    kinds = {
        name: kind
        for name, kind in _params(item).items()
        if name in ("server", "kind", "site") and isinstance(kind, servers.Kind)
    }
    for kind in kinds.values():
        if (unable := why_unable(str(kind), item.name)) is not None:
            reason, always = unable
            item.add_marker(
                pytest.mark.xfail(
                    reason=f"{kind}: {reason}", strict=bool(always), run=always is not None
                )
            )
    ability = item.get_closest_marker("requires")
    kind = kinds.get("server") or kinds.get("kind")
    if ability and kind and (reason := dict(kind.lacks).get(ability.args[0])) is not None:
        # Not run: most would only wait until their time is up.
        item.add_marker(pytest.mark.xfail(reason=reason, run=False))


def _condition(config: pytest.Config) -> Callable[[pytest.Item, list[servers.Kind]], bool]:
    tier, every = config.getoption("--tier"), config.getoption("--every-server")
    names = config.getoption("--core-on")
    folder = config.rootpath / "tests" / "servers"

    def is_asked(item: pytest.Item, kinds: list[servers.Kind]) -> bool:
        return (
            (tier is None or tier == _tier(item, kinds))
            and (every or not _is_left_out(item, kinds))
            and (names is None or _is_core_on(names, item, kinds, folder))
        )

    return is_asked


def _tier(item: pytest.Item, kinds: list[servers.Kind]) -> str:
    marked = any(item.get_closest_marker(name) for name in ("every", "extended", "needs"))
    return "extended" if marked or not BASIC_SERVERS.issuperset(kinds) else "basic"


def _is_core(item: pytest.Item) -> bool:
    return _test_name(item) in CORE.get(item.path.name, ())


def _is_core_on(
    names: set[str], item: pytest.Item, kinds: list[servers.Kind], folder: Path
) -> bool:
    if not item.path.is_relative_to(folder):
        return True
    return _is_core(item) and any(str(kind) in names for kind in kinds)


def _is_left_out(item: pytest.Item, kinds: list[servers.Kind]) -> bool:
    if item.get_closest_marker("every") or not servers.BETWEEN.isdisjoint(kinds):
        return True
    if SECONDARY.isdisjoint(kinds):
        return False
    if item.path.name in CORE:
        return not _is_core(item)
    return _test_name(item) in HEAVY.get(item.path.name, ())


def _test_name(item: pytest.Item) -> str:
    return getattr(item, "originalname", None) or re.sub(r"\[.*", "", item.name)


def _params(item: pytest.Item) -> dict[str, object]:
    params = getattr(item, "callspec", None)
    return params.params if params is not None else {}

"""
Which tests run: those of `make test`, those that `make test-all` adds, and each on which servers.

The basic tier needs what pip and cargo can install, and the servers that most projects run. A test
is in the extended tier when it is for another server, when it is marked with a part that it `needs`
beyond that, or when it is marked `extended`, with the reason. Tests that are marked `every`, which
take minutes or repeat what others prove, wait for `--every-server`.

The lists of behaviours run whole on one server of each family, and on every other server those of
their tests that the server can break: `CORE`. Variants of a server wait for `--every-server`, with
which everything runs everywhere. tests/README.md has the table.
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
# The marks of tests that are not basic, and those of all tests of a file.
_EXTENDED = ("every", "extended", "needs")
_MODULE_MARKS = re.compile(r"^pytestmark = .*?\n(?=\n|\S)", re.MULTILINE | re.DOTALL)
BASIC_SERVERS = frozenset(
    {servers.RUNSERVER, servers.GUNICORN_SYNC, servers.GUNICORN_GTHREAD, servers.UVICORN}
)
# One of each family: threads, green threads, uWSGI, ASGI with the socket, ASGI by events.
WHOLE = frozenset(
    {
        *(servers.GUNICORN_GTHREAD, servers.GUNICORN_GEVENT, wsgi_kinds.UWSGI_HTTP_SOCKET),
        *(kind for kind in servers.ASGI if str(kind) in ("uvicorn-sansio", "granian")),
        # The family of servers that encrypt, for the tests of TLS alone.
        servers.GUNICORN_GTHREAD_TLS,
    }
)
# Variants of a server that finds its socket in the same way, and servers of the past: only where
# every server is asked for. tests/versions has the oldest version of each server.
VARIANTS = re.compile(
    r"runserver-nothreading|gunicorn-(sync|gthread)-unix|gunicorn-sync-tls|gunicorn-.*-\d+\.\d+\.\d+(-tls)?"
    r"|.*eventlet.*|gunicorn-gevent_pywsgi(-tls)?|gevent-server-plain|gevent-tls|werkzeug-tls"
    r"|uwsgi-http11-socket|uwsgi-lazy-apps|uvicorn-(uvloop|websockets|wsproto|unix)|daphne-unix"
    r"|hypercorn-(unix|tls|http2)|uvicorn-tls|gunicorn-asgi-(unix|nginx)"
)

# Behaviour that a server can break: finding the socket, early bytes, the 101, close codes, its end,
# its reload, TLS, the fallback. All tests of a file that is not here run on each server they name.
CORE = {
    "test_contract.py": {
        "test_text_is_echoed",
        "test_a_mebibyte_is_echoed",
        "test_early_frames_are_kept_in_order",
        "test_response_is_what_the_rfc_asks_for",
        "test_headers_and_cookies_of_middleware_are_in_it",
        "test_by_the_client",
        "test_by_the_view",
        "test_process_stops",
    },
    "test_async_views.py": set(),
    "test_application_pings.py": set(),
    "test_client_addresses.py": set(),
    "test_clients.py": {"test_conversation"},
    "test_consumers.py": {"test_messages"},
    "test_consumers_end.py": set(),
    "test_consumers_faults.py": set(),
    "test_fallback.py": {
        "test_they_are_echoed_in_order",
        "test_a_post_without_a_length",
        "test_a_process_that_ends_tells_its_streams",
        "test_an_asgi_server_that_encrypts",
    },
    "test_green.py": {"test_reload", "test_end_of_a_bare_server"},
    "test_green_handshakes.py": set(),
    "test_handler_ends.py": {"test_reload"},
    "test_handler_servers.py": {"test_echo_and_end"},
    "test_helpers.py": set(),
    "test_odd_handshakes.py": set(),
    "test_own_middleware.py": {"test_conversation"},
    "test_polling.py": {"test_they_are_echoed_in_order"},
    "test_recipes.py": set(),
    "test_resources.py": set(),
    "test_startproject.py": {
        "test_chat_of_an_untouched_asgi_file",
        "test_handshake_that_is_refused",
        "test_handler_of_the_project",
    },
    "test_tls.py": {"test_mebibyte_both_ways", "test_early_bytes"},
    "test_tutorials.py": set(),
}
# These run with each of their cases, as each is another behaviour of a server. The other tests of
# CORE run with their first case.
EACH_CASE = {"test_early_frames_are_kept_in_order", "test_early_bytes"}
# How processes of groups come, go and fail is one protocol above both databases: on Redis alone.
BACKEND_TWICE = re.compile(r"test_(.*_nodes|.*_servers|.*_processes|history_model)\.py")
# Elsewhere a test that names several servers runs on the first of them, and on green threads, where
# other code of ours runs.
ON_THE_FIRST = frozenset({"conformance", "handlers", "operations", "proxies", "robustness"})


def later(*values: object) -> list[object]:
    """Mark parameters that are much like another one: only where everything is asked for."""
    mark = pytest.mark.every("much like another case")
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=mark)
        for value in values
    ]


# What `pytest.param` returns.
_Row = type(pytest.param())


def add_options(parser: pytest.Parser) -> None:
    """Add the options that choose tests; without any of them all tests run."""
    parser.addoption("--tier", choices=TIERS, help="only what `make test` runs, or only the rest")
    parser.addoption(
        "--every-server",
        action="store_true",
        help="the whole lists of behaviours on each version and variant of each server, and the"
        " largest numbers of connections: most of an hour",
    )
    parser.addoption(
        "--core-on",
        metavar="SERVER,…",
        type=lambda names: names.split(","),
        help="of all that concerns servers only the lists, whole on the first of these, and their"
        " core on the others",
    )


def is_of_other_tier(path: Path, tier: str | None) -> bool:
    """
    Whether no test of a file or folder is of a tier, as can be told before it is imported.

    All tests of `unit` are basic. Files say in `pytestmark` that all of theirs are not.
    """
    if tier == "extended":
        return path == servers.TESTS / "unit"
    if tier is None or path.suffix != ".py":
        return False
    marks = _MODULE_MARKS.search(path.read_text())
    return marks is not None and any(f"mark.{name}(" in marks[0] for name in _EXTENDED)


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
    marked = any(item.get_closest_marker(name) for name in _EXTENDED)
    return "extended" if marked or not BASIC_SERVERS.issuperset(kinds) else "basic"


def _is_core(item: pytest.Item) -> bool:
    name = _test_name(item)
    return name in CORE.get(item.path.name, ()) and (name in EACH_CASE or _is_first_case(item))


def _is_first_case(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is None or not any(
        index
        for name, index in callspec.indices.items()
        if not isinstance(callspec.params[name], servers.Kind)
    )


def _is_core_on(
    names: list[str], item: pytest.Item, kinds: list[servers.Kind], folder: Path
) -> bool:
    if not item.path.is_relative_to(folder):
        return True
    if item.path.name != "test_contract.py":
        return False
    found = {str(kind) for kind in kinds}
    return names[0] in found or (_is_core(item) and not found.isdisjoint(names))


def _is_left_out(item: pytest.Item, kinds: list[servers.Kind]) -> bool:
    if item.get_closest_marker("every"):
        return True
    if any(VARIANTS.fullmatch(str(kind)) for kind in kinds):
        return True
    params = _params(item).values()
    if "eventlet" in params or ("postgres" in params and BACKEND_TWICE.fullmatch(item.path.name)):
        return True
    if (core := item.get_closest_marker("core")) and _test_name(item) not in core.args:
        return True
    if item.path.parent.name in ON_THE_FIRST and _tier(item, kinds) == "extended":
        return not _is_on_the_first(item)
    if item.path.name not in CORE or WHOLE.issuperset(kinds) or _is_core(item):
        return False
    # Failures that are expected run wherever they are: the table of servers has them.
    return not any(
        dict(kind.lacks).keys() & _abilities(item) or why_unable(str(kind), item.name)
        for kind in kinds
    )


def _is_on_the_first(item: pytest.Item) -> bool:
    """Whether each server of a test is the first that its parametrization names, or green."""
    params = _params(item)
    for marker in item.iter_markers("parametrize"):
        names, values = marker.args[:2]
        names = names.split(",") if isinstance(names, str) else names
        rows = [value.values if isinstance(value, _Row) else value for value in values]
        for index, name in enumerate(names):
            column = [row[index] if isinstance(row, (list, tuple)) else row for row in rows]
            kinds = [kind for kind in column if isinstance(kind, servers.Kind)]
            usual = [kind for kind in kinds if not VARIANTS.fullmatch(str(kind))]
            if usual and params[name] != usual[0]:
                return "gevent" in str(params[name])
    return True


def _abilities(item: pytest.Item) -> set[str]:
    return {marker.args[0] for marker in item.iter_markers("requires")}


def _test_name(item: pytest.Item) -> str:
    return getattr(item, "originalname", None) or re.sub(r"\[.*", "", item.name)


def _params(item: pytest.Item) -> dict[str, object]:
    params = getattr(item, "callspec", None)
    return params.params if params is not None else {}

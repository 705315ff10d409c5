"""The imports that are allowed between the rooms of the package and of the crate."""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

from support.imports import circles

# In one process: it reads the code once.
pytestmark = pytest.mark.xdist_group("the code")

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "dwebsocket"
CRATE = ROOT / "src"

# From the bottom to the top. A room may import those on the lines above it, and its own files;
# never a room on the same line, never one below.
LINE: list[set[str]] = [
    {"telemetry", "users"},
    {"compat"},
    {"exceptions", "conf.values"},
    {"_core", "conf.channel_settings", "request.context", "conf.group_settings", "conf.memory"},
    {"telemetry.clock", "conf", "request", "users.sessions", "compat.unpatched"},
    {"compat.work_queue", "request.worlds"},
    {"api.callbacks", "conf.checks", "request.database", "telemetry.durations", "telemetry.records"}
    | {
        "handshake.preloading",
        "request.request_copy",
        "signals",
        "telemetry.tally",
        "telemetry.tracing",
    },
    {"api.protocol", "api.waiting"},
    {"api"},
    {"groups"},
    {"websocket"},
    {"factory", "users.registry", "typing"},
    {"users.authentication"},
    {"users.announcements"},
    {"users.recheck"},
    {"users.sign_out", "tenants"},
    {"servers"},
    {"runners"},
    {"runners.shutdown"},
    {"client", "handshake"},
    {"handover"},
    {"operations", "management.terminal"},
    {"operations.doctor"},
    {
        "apps",
        "asgi",
        "backends",
        "channels",
        "decorators",
        "handler",
        "management",
        "middleware",
        "migrations",
        "models",
        "templatetags",
    },
    {"operations.admin_page", "runners.asgi_apps", "conf.environment", "rooms"},
    {"admin"},
    {"uvicorn"},
    # `dwebsocket/__init__.py`: the names for users.
    {""},
    {"testing"},
]
HEIGHT = {room: height for height, rooms in enumerate(LINE) for room in rooms}

# Each may be imported only by the files of its name in `compat`, `servers` and `runners`.
SERVER_PACKAGES = {
    "bjoern",
    "cheroot",
    "daphne",
    "eventlet",
    "gevent",
    "granian",
    "gunicorn",
    "hypercorn",
    "uvicorn",
    "uwsgi",
    "uwsgidecorators",
    "waitress",
    "werkzeug",
    "wsgiref",
}
# All that the package may need besides the standard library.
REQUIRED = {"asgiref", "django"}
# What one file each needs when it is used.
OPTIONAL = {
    "operations.scraping": {"prometheus_client"},
    "operations.prometheus": {"prometheus_client"},
    "testing.plugin": {"pytest"},
    "tenants": {"django_tenants"},
    "telemetry.tracing": {"opentelemetry"},
}


def files() -> list[Path]:
    """Every Python file of the package, the stub of the native module included."""
    return sorted(path for path in PACKAGE.rglob("*.py*") if path.suffix in (".py", ".pyi"))


def module_of(path: Path) -> str:
    """Give a file's module below `dwebsocket`, empty for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imports(path: Path) -> set[str]:
    """Give every module that a file imports, wherever in the file, `dwebsocket.x` as `.x`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            module = node.module or ""
            for alias in node.names:
                submodule = f"{module}.{alias.name}"
                found.add(submodule if is_module(submodule) else module)
    return {re.sub(r"^dwebsocket(\.|$)", ".", name) for name in found}


def is_module(name: str) -> bool:
    """Whether a name below `dwebsocket` is a module and not something in one."""
    head, _, rest = name.partition(".")
    path = PACKAGE.joinpath(*rest.split("."))
    return head == "dwebsocket" and any(
        candidate.exists()
        for candidate in (path, path.with_suffix(".py"), path.with_suffix(".pyi"))
    )


def room_of(module: str) -> str:
    """Give the room that a module belongs to: a part of a folder may have a place of its own."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in HEIGHT), parts[0])


def others_of_ours(path: Path) -> set[str]:
    """Give the other rooms of the package that a file imports."""
    rooms = {room_of(name[1:]) for name in imports(path) if name.startswith(".")}
    return rooms - {room_of(module_of(path))}


def test_leans_on_lower_rooms_only() -> None:
    """The line of DESIGN holds, for imports in functions and for types too."""
    wrong = [
        f"{module_of(path)} imports {other}"
        for path in files()
        for other in others_of_ours(path)
        if HEIGHT[other] >= HEIGHT[room_of(module_of(path))]
    ]
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Each module can be read, tested and imported with those alone that it imports."""
    # Imports in functions count, and those for types: a reader follows them all the same.
    graph: dict[str, set[str]] = {}
    for path in files():
        found = {name[1:] for name in imports(path) if name.startswith(".")}
        graph.setdefault(module_of(path), set()).update(found)
    assert circles(graph) == []


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        ({"a": {"b"}, "b": {"c"}}, []),
        ({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}, []),
        ({"a": {"a"}}, [{"a"}]),
        ({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set()}, [{"a", "b", "c"}]),
        (
            {"a": {"b"}, "b": {"a"}, "c": {"a", "d"}, "d": {"e"}, "e": {"c"}},
            [{"c", "d", "e"}, {"a", "b"}],
        ),
    ],
)
def test_circles_are_found(graph: dict[str, set[str]], found: list[set[str]]) -> None:
    """A module that merely leads to a circle, or away from one, is on none."""
    assert circles(graph) == found


def test_nothing_imports_testing() -> None:
    """Projects run without the modules that their tests need."""
    assert [module_of(path) for path in files() if "testing" in others_of_ours(path)] == []


def test_needs_nothing_but_django() -> None:
    """Server packages are imported only in their own file."""
    wrong = {module_of(path): packages for path in files() if (packages := not_allowed(path))}
    assert wrong == {}


def not_allowed(path: Path) -> set[str]:
    """Give the packages that a file imports and may not."""
    allowed = REQUIRED | set(sys.stdlib_module_names) - SERVER_PACKAGES
    if module_of(path).split(".")[0] in ("compat", "servers", "runners"):
        allowed |= {path.stem}
    allowed |= OPTIONAL.get(module_of(path), set())
    if not re.search(r"^(from|import) typing_extensions", path.read_text(), re.MULTILINE):
        # For types alone, indented below TYPE_CHECKING: every type checker brings it.
        allowed |= {"typing_extensions"}
    return {name.split(".")[0] for name in imports(path) if not name.startswith(".")} - allowed


def test_line_has_each_room() -> None:
    """A room that is new has a place on it; one that has gone or was renamed leaves it."""
    assert set(HEIGHT) == {room_of(module_of(path)) for path in files()}


def test_line_names_no_room_twice() -> None:
    """Each room has one place."""
    assert sum(len(rooms) for rooms in LINE) == len(HEIGHT)


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        (
            "protocol",
            r"crate::(engine|binding)|\b(tokio|pyo3|parking_lot)::|std::(net|thread|time)\b",
        ),
        ("engine", r"crate::binding|\bpyo3::"),
    ],
)
def test_rooms_of_the_crate(room: str, forbidden: str) -> None:
    """`protocol` sees no I/O, clock or thread; `engine` sees no Python."""
    for path in sorted((CRATE / room).rglob("*.rs")):
        code = re.sub(r"//.*", "", path.read_text())
        assert not re.search(forbidden, code), path


def test_unsafe_code_is_in_one_place() -> None:
    """Everything that the compiler cannot check can be read in one file, or is named here."""
    pattern = re.compile(r"\bunsafe\s*(\{|fn|impl)")
    found = {
        str(path.relative_to(CRATE))
        for path in CRATE.rglob("*.rs")
        if pattern.search(re.sub(r"//.*", "", path.read_text()))
    }
    # `exit.rs` asks the C library to be called at its exit, `signal.rs` to call it within a signal,
    # `signal_mask.rs` to keep signals from the engine's threads, `trim.rs` to give memory back,
    # `inherited.rs` closes descriptors in a forked child, `socket_option.rs` has options that no
    # crate has; `watched.rs` tells tokio that a socket stays open;
    # `copy.rs` fills `bytes` piece by piece, `sleep.rs` asks which thread is the main one, and
    # `threads.rs` calls functions on threads that Python may end.
    named = {
        "base/signal_mask.rs",
        "process/exit.rs",
        "process/signal.rs",
        "resources/inherited.rs",
        "resources/socket.rs",
        "resources/socket_option.rs",
        "resources/trim.rs",
        "resources/watched.rs",
    }
    assert found <= {f"engine/{name}" for name in named} | {
        "binding/copy.rs",
        "binding/sleep.rs",
        "binding/threads.rs",
    }


# The functions that look again and again, or wait for a while in a loop, with the reason why
# nothing wakes them. Everything else waits for an event, a future or the engine.
POLLING = {
    "api/close_callbacks.py: _wait_for": "the loop of a callback may be closed, which tells nobody",
    "api/opening.py: _await_opening": "a response that middleware drops is freed, in any thread",
    "api/opening.py: accept": "a response that middleware drops is freed, in any thread",
    "channels/node.py: _ask": "a process that has ended does not answer",
    "channels/node.py: flush": "a process that has ended does not answer",
    "channels/node.py: group_send": "lets other tasks run, and does not wait",
    "client/reconnecting.py: __aiter__": "the pause before a server is tried again",
    "client/reconnecting.py: __iter__": "the pause before a server is tried again",
    "compat/transports.py: left": "servers tell nobody when they have dropped a connection",
    "groups/presence/exchanging.py: work": "the pause before a server is tried again",
    "groups/backends/local.py: _note_if_apart": "does not wait: how often it looks for others",
    "groups/backends/node.py: _next_of": "green threads wait for no thread of the system here",
    "groups/backends/postgres/deadline.py: _end_overdue": "a timer, moved by the database",
    "groups/backends/postgres/listener.py: _run": "the pause before a server is tried again",
    "groups/backends/process.py: _ainsist": "a process that lets a history go tells nobody",
    "handover/arriving.py: accept": "Django's event may be a green one",
    "handover/leaving.py: give": "a process that begins to listen tells nobody",
    "handover/places.py: wait_until": "no message tells that all before it have come",
    "management/commands/websocket_stats.py: _watch": "prints every so many seconds",
    "runners/green.py: join": "the hub of another thread tells this one nothing",
    "operations/survey.py: _take_samples": "counts once in so many seconds",
    "runners/handler_threads.py: _next_of": "the pause after a failure",
    "runners/handler.py: _aturn": "lets other tasks run, and does not wait",
    "servers/asgi/carrying.py: _count_server_bytes": "servers do not tell what a client has read",
    "runners/shutdown.py: drain": "its time is that of a clock that a test may step",
    "management/terminal/load.py: run": "prints every so many seconds",
    "compat/unpatched.py: acquire": "green threads cannot wait for a lock of the system",
    "compat/unpatched.py: keep_up": "the pause after a failure",
}
_WAITS = {"acquire", "await_call", "get", "join", "poll", "select"}
_WAITS |= {"wait", "wait_for", "wait_until"}


def polling_in(tree: ast.Module) -> set[str]:
    """Give the functions of a module that sleep in a loop, wait for a fixed time, or look again."""
    found: set[str] = set()

    def visit(node: ast.AST, name: str, *, is_looped: bool) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name, is_looped = node.name, False
        elif isinstance(node, ast.While | ast.For | ast.AsyncFor):
            is_looped = True
        elif isinstance(node, ast.Name) and re.fullmatch(r"_\w*LOOK\w*_S", node.id):
            # Where it is set it is in no function.
            found.add(name)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).split(".")[-1]
            words = re.findall(r"\w+", ast.unparse(node)[len(ast.unparse(node.func)) :])
            is_fixed = any(re.fullmatch(r"_[A-Z_]+_S", word) for word in words)
            if is_looped and (called in ("sleep", "pause") or (called in _WAITS and is_fixed)):
                found.add(name)
            if called == "call_later" and name in words:
                found.add(name)
        for child in ast.iter_child_nodes(node):
            visit(child, name, is_looped=is_looped)

    visit(tree, "", is_looped=False)
    return found - {""}


def test_polling_is_found() -> None:
    """In each of its forms; a wait for an event is none, also with a limit."""
    code = """
def sleeps():
    while True:
        time.sleep(0.1)
async def waits():
    for _ in range(9):
        await event.wait(_PAUSE_S)
def looks():
    queue.get(timeout=min(left, _GREEN_LOOK_S))
def again():
    loop.call_later(1, again)
def is_woken():
    while left > 0:
        event.wait(left)
    time.sleep(1)
"""
    assert polling_in(ast.parse(code)) == {"sleeps", "waits", "looks", "again"}


def test_nothing_polls_but_what_must() -> None:
    """A new place waits for an event, or is named above with its reason."""
    polling = {
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in PACKAGE.rglob("*.py")
        if not path.is_relative_to(PACKAGE / "testing")
        for name in polling_in(ast.parse(path.read_text()))
    }
    assert polling == POLLING.keys()

"""
Private parts of other libraries are touched in `dwebsocket.compat` and nowhere else.

A private part shows in the code alone: a name with an underscore that no code of this package
defines, wherever an attribute, a string or an import names it. Parts of other libraries that
are not documented although they have no underscore are listed here.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

# In one process: it reads the code once.
pytestmark = pytest.mark.xdist_group("the code")

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "dwebsocket"
COMPAT = PACKAGE / "compat"

_PRIVATE = re.compile(r"_[A-Za-z]\w*")
# Calls whose arguments name an attribute.
_BY_NAME = {"getattr", "hasattr", "setattr", "delattr", "attrgetter", "methodcaller"}
_BY_NAME |= {"__getattribute__", "__getattr__", "__setattr__", "__delattr__"}
# Methods of dictionaries, for `vars(thing)` and `thing.__dict__`.
_OF_DICTIONARIES = {"get", "pop", "setdefault"}

# Private modules of the standard library that its documentation has.
_PUBLIC_MODULES = {"_core", "_thread", "_typeshed", "__future__"}
# Django's documentation has these, underscore and all.
_DOCUMENTED = {"_default_manager", "_meta", "_state"}
# Parts without an underscore that are not documented either: attributes, and names of modules.
_UNDOCUMENTED = {
    *("__closure__", "cell_contents"),
    *("executors", "thread_sensitive_context", "deadlock_context", "loop_thread_executors"),
    *("unreader", "force_close", "headers_sent", "header_plus", "requests_lock"),
    *("channel_request_lookahead", "inject", "uwsgi_wsgi_req", "request_version"),
    *("uwsgi_proto_base_read_body", "threaded_current_wsgi_req", "is_in_memory_db"),
}
_UNDOCUMENTED_NAMES = {
    "django.core.handlers.asgi": {"ASGIHandler"},
    "django.http.request": {"split_domain_port", "validate_host"},
    "django.test.client": {"AsyncClientHandler", "ClientHandler", "FakePayload"},
    "django.utils": {"autoreload"},
    "django.utils.functional": {"empty", "LazyObject", "SimpleLazyObject"},
    "django.utils.http": {"is_same_domain"},
    "asgiref": {"local"},
    "eventlet": {"hubs"},
}


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Read a file's code."""
    return ast.parse(path.read_text())


def sources() -> list[Path]:
    """Every Python file of the package but those that may touch private parts."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if not path.is_relative_to(COMPAT)]


def strings_of_names(node: ast.AST) -> list[str]:
    """Give the attributes that a piece of code names by strings."""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
        is_of_dictionary = (
            name in _OF_DICTIONARIES
            and isinstance(node.func, ast.Attribute)
            and is_dictionary_of_attributes(node.func.value)
        )
        candidates = node.args if name in _BY_NAME or is_of_dictionary else []
    elif isinstance(node, ast.Subscript) and is_dictionary_of_attributes(node.value):
        candidates = [node.slice]
    else:
        candidates = []
    return [
        each.value
        for each in candidates
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    ]


def is_dictionary_of_attributes(node: ast.AST) -> bool:
    """Whether it is `vars(thing)`, `thing.__dict__` or what gives the latter."""
    if isinstance(node, ast.Call):
        is_vars = isinstance(node.func, ast.Name) and node.func.id == "vars"
        return is_vars or "__dict__" in strings_of_names(node)
    return isinstance(node, ast.Attribute) and node.attr == "__dict__"


def defined(tree: ast.AST) -> set[str]:
    """Give the private names that a file defines: of modules, classes and objects."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            # Of others nothing is defined by being set.
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                found.add(node.attr)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "__slots__" for target in targets):
                strings = ast.walk(node.value) if node.value is not None else ()
                found.update(str(each.value) for each in strings if isinstance(each, ast.Constant))
        elif isinstance(node, ast.keyword) and node.arg is not None:
            # `thing.__dict__.update(_name=…)`
            found.add(node.arg)
    return {name for name in found if _PRIVATE.fullmatch(name)}


def touched(tree: ast.AST) -> dict[int, set[str]]:
    """Give the names that a file reads, sets or asks for on anything, by their lines."""
    found: dict[int, set[str]] = {}
    for node in ast.walk(tree):
        names = strings_of_names(node)
        if isinstance(node, ast.Attribute):
            names.append(node.attr)
        for name in names:
            if (_PRIVATE.fullmatch(name) or name in _UNDOCUMENTED) and name not in _DOCUMENTED:
                found.setdefault(node.lineno, set()).add(name)
    return found


def imported(tree: ast.AST) -> dict[int, set[str]]:
    """Give the private or undocumented names that a file imports from others, by their lines."""
    found: dict[int, set[str]] = {}
    for node in ast.walk(tree):
        names: set[str] = set()
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names if is_private_path(alias.name)}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            undocumented = _UNDOCUMENTED_NAMES.get(module, set())
            names = {
                f"{module}.{alias.name}"
                for alias in node.names
                if is_private_path(f"{module}.{alias.name}") or alias.name in undocumented
            }
        if names:
            found[node.lineno] = names
    return found


def is_private_path(path: str) -> bool:
    """Whether a part of a dotted name of another library is private."""
    parts = path.split(".")
    is_ours = parts[0] == "dwebsocket"
    return not is_ours and any(
        _PRIVATE.fullmatch(part) and part not in _PUBLIC_MODULES for part in parts
    )


@functools.cache
def names_of_ours() -> set[str]:
    """Give the private names that the package defines."""
    return set().union(*(defined(parsed(path)) for path in sources()))


@functools.cache
def names_of_others() -> set[str]:
    """Give the names that `dwebsocket.compat` touches and does not define: they are others'."""
    trees = [parsed(path) for path in COMPAT.glob("*.py")]
    ours = set().union(*map(defined, trees))
    return {name for tree in trees for names in touched(tree).values() for name in names} - ours


def offences(tree: ast.Module) -> list[str]:
    """Give the private names of others that a file touches, as `line: name`."""
    ours, others = names_of_ours(), names_of_others()
    own = defined(tree)
    found = {
        line: {name for name in names if name not in own and (name in others or name not in ours)}
        for line, names in touched(tree).items()
    }
    for line, names in imported(tree).items():
        found.setdefault(line, set()).update(names)
    return [f"{line}: {name}" for line, names in sorted(found.items()) for name in sorted(names)]


def test_private_parts_are_touched_in_one_place() -> None:
    """A part that another library does not promise has one place, docstring and fallback."""
    found = {str(path): names for path in sources() if (names := offences(parsed(path)))}
    assert found == {}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("thread._started.wait()", ["1: _started"]),
        ("sock._sslobj = None", ["1: _sslobj"]),
        ("getattr(response, '_store', None)", ["1: _store"]),
        ("object.__getattribute__(settings, '_wrapped')", ["1: _wrapped"]),
        ("request.__dict__['_stream'] = None", ["1: _stream"]),
        ("vars(user).get('_setupfunc')", ["1: _setupfunc"]),
        ("object.__getattribute__(user, '__dict__').get('_setupfunc')", ["1: _setupfunc"]),
        ("import _socket", ["1: _socket"]),
        ("import asyncio\nasyncio._get_running_loop()", ["2: _get_running_loop"]),
        ("from asyncio import _get_running_loop", ["1: asyncio._get_running_loop"]),
        (
            "from gevent._hub_local import get_hub_if_exists",
            ["1: gevent._hub_local.get_hub_if_exists"],
        ),
        ("def view():\n    from _queue import SimpleQueue", ["2: _queue.SimpleQueue"]),
        ("from django.utils.functional import empty", ["1: django.utils.functional.empty"]),
        ("request.header_plus", ["1: header_plus"]),
        ("AsyncToSync.executors.current", ["1: executors"]),
        # No name of ours, nor any in `compat`, is like it.
        ("cursor._no_name_of_ours", ["1: _no_name_of_ours"]),
    ],
)
def test_finds(code: str, found: list[str]) -> None:
    """The test above can fail."""
    assert offences(ast.parse(code)) == found


@pytest.mark.parametrize(
    "code",
    [
        "websocket._connection",
        "getattr(websocket, '_view', None)",
        "from dwebsocket import _core",
        "import _thread",
        "class Own:\n    def __init__(self):\n        self._stream = 1",
        "values['_stream']",
    ],
)
def test_leaves_alone(code: str) -> None:
    """Our own private parts, and names that only look private."""
    assert offences(ast.parse(code)) == []


def test_says_what_it_reads() -> None:
    """Each public function and module of `compat` has a docstring."""
    silent = []
    for path in sorted(COMPAT.glob("*.py")):
        tree = parsed(path)
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        public = [each for each in functions if not each.name.startswith("_")]
        silent += [
            f"{path.stem}: {getattr(node, 'name', 'module')}"
            for node in (tree, *public)
            if not ast.get_docstring(node)
        ]
    assert silent == []

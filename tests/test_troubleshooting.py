"""docs/troubleshooting.md has the messages of the code, and no others."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from dwebsocket import ConnectionFailed, ConnectionTimeout, HandshakeRefused

ROOT = Path(__file__).resolve().parent.parent
NAME = "docs/troubleshooting.md"
PAGE = (ROOT / NAME).read_text()
PACKAGE = ROOT / "python" / "dwebsocket"
#: Calls whose first text is a message for users.
CALLS = {
    "ConnectionFailed",
    "ConnectionTimeout",
    "ImproperlyConfigured",
    "ShuttingDown",
    "UnsupportedServer",
    "UsageError",
    "refuse",
}
CHECKS = {"Error", "Warning"}
#: Where a `ValueError` has a message for users, too.
CLIENT = {"address.py", "proxies.py"}
#: Where the engine says why a connection to another server does not open.
DIALING = [
    *sorted((ROOT / "src/engine/dialing").glob("*.rs")),
    ROOT / "src/protocol/client_handshake.rs",
    ROOT / "src/protocol/response.rs",
]


def text_of(node: ast.expr) -> str | None:
    """Give a literal, with an ellipsis for each value in it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
        return re.sub("…+", "…", "".join(str(part) for part in parts))
    return None


def messages() -> set[str]:
    """Give the messages of the code, apart from those that are but a value, or a log level."""
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(PACKAGE / "testing"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if not (
                name in CALLS
                or (name in CHECKS and path.name == "checks.py")
                or (name == "ValueError" and path.parent.name == "client" and path.name in CLIENT)
            ):
                continue
            texts = [text for text in map(text_of, node.args) if text is not None]
            if texts and len(re.findall(r"\w{2,}", texts[0])) > 1:
                found.add(texts[0])
    return found


def reasons() -> set[str]:
    """Give the engine's reasons: the texts of three words and more, apart from lines of HTTP."""
    found = set()
    for path in DIALING:
        code = path.read_text().partition("#[cfg(test)]\nmod tests")[0]
        # Above it a request is made, and the texts are about arguments.
        code = code.partition("pub fn validate(")[2] or code
        code = re.sub(r"^\s*//.*|#\[expect\(.*", "", code, flags=re.MULTILINE)
        for text in re.findall(r'"((?:[^"\\\n]|\\.)*)"', code):
            if len(text.split()) > 2 and "\\r\\n" not in text:
                found.add(re.sub(r"\{[^}]*\}", "…", text))
    return found


def shown(page: str = NAME) -> str:
    """Give a page's cells, with bars between them."""
    rows = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("| ")]
    return "|".join(cell.strip() for row in rows for cell in row.split("|"))


def test_page_has_every_message() -> None:
    """Word by word, so that a search finds it."""
    cells = shown()
    assert len(reasons()) > 20
    assert [each for each in sorted(messages() | reasons()) if each not in cells] == []


def test_page_has_every_check() -> None:
    """By its number."""
    numbers = re.findall(
        r'id="dwebsocket\.([EW]\d+)"',
        "".join(path.read_text() for path in PACKAGE.rglob("checks.py")),
    )
    assert len(numbers) > 10
    assert [number for number in numbers if number not in PAGE] == []


def test_page_has_no_message_that_is_gone() -> None:
    """A `UsageError` that stands there is one of the code."""
    part = PAGE.partition("## Errors of a view")[2].partition("\nOthers:")[0]
    rows = [line for line in part.splitlines() if line.startswith("| ")]
    told = {row.split("|")[1].strip() for row in rows} - {"Message"}
    assert len(told) > 20
    assert told - messages() == set()


def test_page_has_the_exceptions_of_a_connection() -> None:
    """Each of them, and each `step` of a failure."""
    part = PAGE.partition("## A connection to another server")[2].partition("\n## ")[0]
    assert str(HandshakeRefused("…", "…")) in part  # type: ignore[arg-type]
    steps = re.findall(r'``"(\w+)"``', ConnectionFailed.__doc__ or "")
    names = [each.__name__ for each in (ConnectionFailed, ConnectionTimeout, HandshakeRefused)]
    assert len(steps) == 6
    assert [each for each in [*steps, *names] if f"`{each}`" not in part] == []

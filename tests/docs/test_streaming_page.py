"""docs/streaming.md: answers in pieces; nothing of a cancelled one follows the next one."""

from __future__ import annotations

import itertools
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from support.pages import run
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.testing import WebSocketClient

    Serve = Callable[..., WebSocketClient]

PAGE = "docs/streaming.md"
VIEWS = {"async": "from contextlib import aclosing", "sync": "from contextlib import closing"}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the page's generator, which gives a piece each few milliseconds."""
    made = ModuleType("answers.model")
    vars(made).update(run(PAGE, "answers/model.py", ("0.05", "0.002")))
    monkeypatch.setitem(sys.modules, "answers", ModuleType("answers"))
    monkeypatch.setitem(sys.modules, "answers.model", made)
    return made


def text_of(websocket: Any, number: int) -> str:
    """Read one answer to its end."""
    texts = []
    while True:
        message = websocket.receive_json()
        assert message["answer"] == number
        if message.get("done"):
            return "".join(texts)
        texts.append(message["text"])


@pytest.mark.parametrize("part", VIEWS.values(), ids=VIEWS)
@pytest.mark.usefixtures("model")
def test_an_answer_comes_in_pieces(serve: Serve, part: str) -> None:
    """And another one after it; a message of another kind is none."""
    with serve(run(PAGE, part)["ask"]).websocket("/") as websocket:
        for number in (1, 2):
            websocket.send_json({"ask": "why not", "id": number})
            assert text_of(websocket, number) == "You asked: why not "
            websocket.send_json(["something else"])


@pytest.mark.parametrize("part", VIEWS.values(), ids=VIEWS)
@pytest.mark.usefixtures("model")
def test_nothing_of_a_cancelled_answer_follows_the_next_one(serve: Serve, part: str) -> None:
    """Whether it was cancelled by a message, or by the next question."""
    endless = "on and on " * 10_000
    with serve(run(PAGE, part)["ask"]).websocket("/") as websocket:
        for number in range(1, 9):
            websocket.send_json({"ask": endless, "id": number})
            # Once some of it has come, so that it is under way.
            while websocket.receive_json() != {"answer": number, "text": "on "}:
                pass
            if number % 2:
                websocket.send_json({"cancel": number})
        websocket.send_json({"ask": "last", "id": 9})
        seen = []
        while not seen or seen[-1] != {"answer": 9, "done": True}:
            seen.append(websocket.receive_json())
    order = [number for number, _ in itertools.groupby(each["answer"] for each in seen)]
    assert order in ([8, 9], [9])
    assert not any(each.get("done") for each in seen[:-1])


@pytest.mark.parametrize("part", VIEWS.values(), ids=VIEWS)
def test_the_model_is_closed(serve: Serve, model: ModuleType, part: str) -> None:
    """When its answer is cancelled, before the next one begins; and when the page goes."""
    events: list[str] = []

    def noted(generate: Any) -> Any:
        def pieces(prompt: str) -> Any:
            events.append(f"open {prompt}")
            try:
                yield from generate(prompt)
            finally:
                events.append(f"close {prompt}")

        return pieces

    def anoted(generate: Any) -> Any:
        async def pieces(prompt: str) -> Any:
            events.append(f"open {prompt}")
            try:
                async for piece in generate(prompt):
                    yield piece
            finally:
                events.append(f"close {prompt}")

        return pieces

    vars(model).update(pieces=noted(model.pieces), apieces=anoted(model.apieces))
    first, second = "one " * 10_000, "two " * 10_000
    with serve(run(PAGE, part)["ask"]).websocket("/") as websocket:
        for number, prompt in enumerate((first, second)):
            websocket.send_json({"ask": prompt, "id": number})
            while websocket.receive_json()["answer"] != number:
                pass
    expected = [f"{what} {text}" for text in (first, second) for what in ("open", "close")]
    # A thread is told of the end by its next piece.
    eventually(lambda: events == expected, what="both answers are closed")

"""The hub of green threads behaves as the engine's hub for threads does: both are tested."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket import _core
from dwebsocket.runners.green_hub import GreenHub

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.parametrize(
    "make", [functools.partial(_core.Hub, for_threads=True), GreenHub], ids=["engine", "green"]
)


def test_threads_share_the_tokens_of_a_hub(make: Callable[[], Any]) -> None:
    """Each token goes to one of them; closing the hub ends all."""
    made = make()
    found: list[int] = []
    all_found = threading.Event()

    def work() -> None:
        turn = None
        while (work := made.next(turn)) is not None:
            token, turn, _ = work
            found.append(token)
            if len(found) == 100:
                all_found.set()

    crew = [threading.Thread(target=work) for _ in range(3)]
    for thread in crew:
        thread.start()
    for token in range(100):
        made.announce(token)
    assert all_found.wait(10)
    made.close()
    for thread in crew:
        thread.join(10)
    assert sorted(found) == list(range(100))


def test_lanes_of_a_hub_have_turns(make: Callable[[], Any]) -> None:
    """A token of the lane that has had none for longest comes first; those of one in order."""
    made = make()
    lane = 1 << 40
    for token in (lane + 1, lane + 2, lane + 3):
        made.announce(token)
    found = [made.next(None, 0)]
    for token in (2 * lane + 1, 2 * lane + 2):
        made.announce(token)
    while len(found) < 5:
        found.append(made.next(found[-1][1], 0))
    tokens = [token for token, _, _ in found]
    assert tokens == [lane + 1, 2 * lane + 1, lane + 2, 2 * lane + 2, lane + 3]

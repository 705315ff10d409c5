"""The model by which clients are validated finds each kind of fault."""

from __future__ import annotations

from typing import Any

import pytest
from chaos_model import Account, Broken

BEGIN = ["r", "a", "e1-5", True, 0]
# In a room that stays open.
LOST = ["r", "a", None, False, 0]


def message(offset: int, epoch: str = "e1", text: str = "") -> list[Any]:
    """Give a client's entry for a message."""
    return ["m", "a", f"{epoch}-{offset}", text or f"{epoch} {offset}"]


def told(position: str, missed: int = 0, *, recovered: bool = True) -> list[Any]:
    """Give a client's entry for having come back."""
    return ["r", "a", position, recovered, missed]


GOOD = [
    [],
    [BEGIN],
    [BEGIN, message(6), message(7)],
    [BEGIN, message(6), ["s", "waiting", 0, 1006, "sse"], message(7), told("e1-7", 1), message(8)],
    [BEGIN, told("e2-0", recovered=False), message(1, "e2")],
    [BEGIN, message(6), told("e2-8", recovered=False), message(9, "e2")],
    [BEGIN, message(6), LOST, message(3, "e2"), message(4, "e2")],
    [BEGIN, message(6), LOST, told("e2-8", recovered=False), message(9, "e2")],
]


@pytest.mark.parametrize("log", GOOD)
def test_good(log: list[Any]) -> None:
    """Without gaps, or told of them."""
    account = Account()
    account.take(log, may_lose=True)
    assert account.messages == sum(fact[0] == "m" for fact in log)


BAD = [
    [message(1)],
    [["r", "a", "e1-5", False, 0]],
    [["r", "a", "e1-5", True, 2]],
    [BEGIN, message(7)],
    [BEGIN, message(5)],
    [BEGIN, message(6), message(6)],
    [BEGIN, message(6, "e2")],
    [BEGIN, message(1, "e2")],
    [BEGIN, message(6), message(8), message(7)],
    [BEGIN, told("e1-7")],
    [BEGIN, message(6), told("e1-5")],
    [BEGIN, told("e1-7", recovered=False)],
    [BEGIN, LOST, message(3, "e2"), message(5, "e2")],
]


@pytest.mark.parametrize("log", BAD)
def test_bad(log: list[Any]) -> None:
    """A gap, a message that comes twice or too early, or a loss without its reason."""
    with pytest.raises(Broken):
        Account().take(log, may_lose=True)


def test_loss_of_what_is_never_lost() -> None:
    """Where numbering does not start anew."""
    for loss in (LOST, told("e2-0", recovered=False)):
        with pytest.raises(Broken, match="has lost"):
            Account().take([BEGIN, loss], may_lose=False)


def test_clients_see_the_same() -> None:
    """At one position."""
    account = Account()
    account.take([BEGIN, message(6, text="x")], may_lose=False)
    with pytest.raises(Broken, match="for another"):
        account.take([BEGIN, message(6, text="y")], may_lose=False)


def account_of(*epochs: list[str]) -> Account:
    """Give what clients have seen of one group, by epoch."""
    account = Account()
    for number, texts in enumerate(epochs):
        log = [["r", "a", f"e{number}-0", True, 0]]
        log += [message(n, f"e{number}", text) for n, text in enumerate(texts, 1)]
        account.take(log, may_lose=True)
    return account


ATTEMPTS = [("a", "1", True), ("a", "2", False), ("a", "3", True), ("a", "4", True)]


@pytest.mark.parametrize(
    "seen", [["1", "3", "4"], ["1", "2", "3", "4"], ["1", "3", "2", "4"], ["x", "1", "3", "y", "4"]]
)
def test_attempts_that_raised_may_arrive(seen: list[str]) -> None:
    """Or not; others' messages are between."""
    account_of(seen).compare(ATTEMPTS, may_lose=False)


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        (["1", "3"], "never came"),
        (["3", "4"], "never came"),
        (["1", "4"], "was due"),
        (["3", "1", "4"], "was due"),
        (["1", "2", "2", "3", "4"], "twice"),
        (["1", "3", "4", "4"], "all were there"),
    ],
)
def test_attempts_that_returned(seen: list[str], fault: str) -> None:
    """Have arrived, once and in order."""
    with pytest.raises(Broken, match=fault):
        account_of(seen).compare(ATTEMPTS, may_lose=False)


def test_attempts_over_two_epochs() -> None:
    """The last ones before the second may be lost, and nothing else."""
    account_of(["1"], ["4"]).compare(ATTEMPTS, may_lose=True)
    with pytest.raises(Broken, match="twice"):
        account_of(["1", "3"], ["3", "4"]).compare(ATTEMPTS, may_lose=True)

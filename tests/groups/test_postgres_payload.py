"""What goes through NOTIFY: read as it was written, and nothing else is taken for it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dwebsocket.groups.backends.postgres import payload

KEY, OTHER = b"k" * 32, b"o" * 32

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
numbers = st.integers(0, 10**18 - 1)
words = st.text("0123456789abcdef-", min_size=1, max_size=30)

WRITTEN = [
    payload.of_message(payload.Message("a-1", False, payload.pack("room", b"envelope"))),
    payload.of_row(payload.Row("a-1", True, 7, "room"), KEY),
    payload.of_question(payload.Question("1", "channel", "room"), KEY),
    payload.of_answer(payload.Answer("1", 2, 3), KEY),
]


@given(names, st.binary(), words, st.booleans())
def test_message(name: str, envelope: bytes, publication: str, is_repeated: bool) -> None:
    """With its group's name, whatever that is."""
    message = payload.Message(publication, is_repeated, payload.pack(name, envelope))
    text = payload.of_message(message)
    assert text.isascii()
    assert "'" not in text
    assert payload.read(text, KEY) == message
    assert payload.unpack(message.content) == (name, envelope)


@given(names, words, numbers, st.booleans())
def test_row(name: str, publication: str, number: int, is_repeated: bool) -> None:
    """The number of a row, and the group, so that processes without members need not read it."""
    row = payload.Row(publication, is_repeated, number, name)
    text = payload.of_row(row, KEY)
    assert len(text) <= payload.LONGEST
    assert "'" not in text
    assert payload.read(text, KEY) == row
    assert payload.read(text, OTHER) is None


@given(names, words)
def test_question(name: str, number: str) -> None:
    """With the channel for the answers."""
    question = payload.Question(number, "dwebsocket_1a", name)
    text = payload.of_question(question, KEY)
    assert "'" not in text
    assert payload.read(text, KEY) == question
    assert payload.read(text, OTHER) is None


@given(words, numbers, numbers)
def test_answer(number: str, pid: int, members: int) -> None:
    """With the number of members."""
    answer = payload.Answer(number, pid, members)
    assert payload.read(payload.of_answer(answer, KEY), KEY) == answer
    assert payload.read(payload.of_answer(answer, KEY), OTHER) is None


@given(st.text())
@example("")
@example("m")
@example("m.")
@example("r..")
@example("q1.'); DROP TABLE x; --.cm9vbQ==.")
def test_any_text(text: str) -> None:
    """Is at most a message, whose seal the engine checks; and reading never raises."""
    found = payload.read(text, KEY)
    assert found is None or isinstance(found, payload.Message)
    if found is not None:
        payload.unpack(found.content)


@given(st.binary())
def test_any_content(content: bytes) -> None:
    """Gives a name and an envelope, or None."""
    import base64

    payload.unpack(base64.b64encode(content).decode())


@pytest.mark.parametrize("text", WRITTEN[1:])
def test_changed_texts(text: str) -> None:
    """One character more, less or another one: the HMAC is wrong then."""
    for index in range(len(text)):
        for changed in (
            text[:index] + text[index + 1 :],
            text[:index] + "0" + text[index:],
            text[:index] + ("1" if text[index] != "1" else "2") + text[index + 1 :],
        ):
            found = payload.read(changed, KEY)
            assert found is None or isinstance(found, payload.Message), changed


def test_channel_of_a_question_is_one() -> None:
    """It becomes part of a statement, so not even those who know the key choose any text."""
    question = payload.Question("1", "x'); DROP TABLE users; --", "room")
    assert payload.read(payload.of_question(question, KEY), KEY) is None


@pytest.mark.parametrize("is_whole", [True, False])
def test_what_the_database_has_numbered(*, is_whole: bool) -> None:
    """Has a position in front; without one it is nothing."""
    kind = "h" if is_whole else "H"
    found = payload.read(f"{kind}00000000000000ab-12.content", KEY)
    assert found == payload.Recorded(0xAB, 12, "content", is_whole)
    for position in ("", "ab-12", "00000000000000ab-", "00000000000000ab-x", "00000000000000AB-1"):
        assert payload.read(f"{kind}{position}.content", KEY) is None

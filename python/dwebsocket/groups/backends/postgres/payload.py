"""
The payload of ``NOTIFY``: texts of at most 7,999 bytes, in ASCII.

The first character says what it is. A message is sealed by the engine, together with its group's
name; so is one of a group with a history, to which the database adds its position. The other kinds
end with an HMAC (RFC 2104) of all that comes before it. So nothing that
others put into the channel is taken for a message, a question or an answer of this project.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass

#: The longest text that ``NOTIFY`` takes, in bytes.
LONGEST = 7999

_MESSAGE, _REPEATED, _ROW, _REPEATED_ROW, _QUESTION, _ANSWER = "m", "M", "r", "R", "q", "a"
# Of groups with a history, as the database announces them: whole, or only the beginning.
_RECORDED, _LONG = "h", "H"
_POSITION = re.compile(r"([0-9a-f]{16})-([0-9]{1,19})", re.ASCII)
_MAC_BYTES = 16
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_CHANNEL = re.compile(r"[a-z0-9_]{1,63}", re.ASCII)


@dataclass(frozen=True)
class Message:
    """
    A message that is in the text itself.

    Attributes:
        publication: Names this call of ``publish``.
        is_repeated: It may have been published before, under the same name.
        content: What :func:`unpack` takes.
    """

    publication: str
    is_repeated: bool
    content: str


@dataclass(frozen=True)
class Row:
    """
    A message that is in a row of the table.

    Attributes:
        publication: As of :class:`Message`.
        is_repeated: As of :class:`Message`.
        number: The row's.
        name: The group's.
    """

    publication: str
    is_repeated: bool
    number: int
    name: str


@dataclass(frozen=True)
class Recorded:
    """
    A message of a group with a history, which the database has numbered.

    Attributes:
        epoch: The numbering.
        number: The message's.
        content: What :func:`unpack` takes; the envelope of a long one is not whole.
        is_whole: Whether it is.
    """

    epoch: int
    number: int
    content: str
    is_whole: bool


@dataclass(frozen=True)
class Question:
    """
    Asks each process for its number of members.

    Attributes:
        number: The question's.
        channel: Where the answers go.
        name: The group's.
    """

    number: str
    channel: str
    name: str


@dataclass(frozen=True)
class Answer:
    """
    The answer of one process.

    Attributes:
        number: The question's.
        pid: The number of the server's process for the listening connection.
        members: The number of members there.
    """

    number: str
    pid: int
    members: int


def pack(name: str, envelope: bytes) -> str:
    """Returns a message's content: the group's name and the envelope."""
    encoded = name.encode()
    return _base64(len(encoded).to_bytes(2, "big") + encoded + envelope)


def unpack(content: str) -> tuple[str, bytes] | None:
    """Returns the group's name and the envelope; None for a text that has none."""
    try:
        found = base64.b64decode(content, validate=True)
        length = int.from_bytes(found[:2], "big")
        if len(found) < 2 + length:
            return None
        return found[2 : 2 + length].decode(), found[2 + length :]
    except ValueError:
        return None


def of_message(message: Message) -> str:
    """Returns the text of a message."""
    kind = _REPEATED if message.is_repeated else _MESSAGE
    return f"{kind}{message.publication}.{message.content}"


def of_row(row: Row, key: bytes) -> str:
    """Returns the text for a row of the table."""
    kind = _REPEATED_ROW if row.is_repeated else _ROW
    text = f"{kind}{row.publication}.{row.number}.{_base64(row.name.encode())}"
    return _signed(text, key)


def of_question(question: Question, key: bytes) -> str:
    """Returns the text of a question."""
    name = _base64(question.name.encode())
    return _signed(f"{_QUESTION}{question.number}.{question.channel}.{name}", key)


def of_answer(answer: Answer, key: bytes) -> str:
    """Returns the text of an answer."""
    return _signed(f"{_ANSWER}{answer.number}.{answer.pid}.{answer.members}", key)


def read(text: str, key: bytes) -> Message | Row | Recorded | Question | Answer | None:
    """Reads a text; None when it is of none of these kinds, or its HMAC is wrong."""
    kind, rest = text[:1], text[1:]
    if kind in (_MESSAGE, _REPEATED):
        publication, _, content = rest.partition(".")
        return Message(publication, kind == _REPEATED, content)
    if kind in (_RECORDED, _LONG):
        position, _, content = rest.partition(".")
        found = _POSITION.fullmatch(position)
        return found and Recorded(int(found[1], 16), int(found[2]), content, kind == _RECORDED)
    signed, _, mac = text.rpartition(".")
    if not hmac.compare_digest(mac.encode(), _mac(signed, key).encode()):
        return None
    fields = signed[1:].split(".")
    if len(fields) != 3:
        return None
    first, second, third = fields
    if kind in (_ROW, _REPEATED_ROW):
        name = _unbase64(third)
        if name is None or not _NUMBER.fullmatch(second):
            return None
        return Row(first, kind == _REPEATED_ROW, int(second), name)
    if kind == _QUESTION:
        name = _unbase64(third)
        if name is None or not _CHANNEL.fullmatch(second):
            return None
        return Question(first, second, name)
    if kind == _ANSWER and _NUMBER.fullmatch(second) and _NUMBER.fullmatch(third):
        return Answer(first, int(second), int(third))
    return None


def _base64(found: bytes) -> str:
    return binascii.b2a_base64(found, newline=False).decode()


def _unbase64(text: str) -> str | None:
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError:
        return None


def _signed(text: str, key: bytes) -> str:
    return f"{text}.{_mac(text, key)}"


def _mac(text: str, key: bytes) -> str:
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256")[:_MAC_BYTES].hex()

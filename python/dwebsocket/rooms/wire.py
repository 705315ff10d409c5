"""The messages of the subprotocol ``dwebsocket.rooms.1``: JSON texts, one object each."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from json.encoder import encode_basestring, encode_basestring_ascii
from sys import getsizeof
from typing import Any, Literal, NoReturn, TypeAlias

from django.core.serializers.json import DjangoJSONEncoder

from dwebsocket import _core

#: The subprotocol.
SUBPROTOCOL = "dwebsocket.rooms.1"

Code = Literal["denied", "unknown", "invalid", "limit", "unavailable", "failed"]
Kind = Literal["join", "leave", "event", "update", "ping"]

#: The texts for clients, by their codes. Never more for one room than for another.
TEXTS: dict[str, str] = {
    "denied": "This is not allowed.",
    "unknown": "There is no such room.",
    "unavailable": "The server cannot do this now. Try it again later.",
    "failed": "The server has failed.",
}
# Objects and lists may be within each other so often: more could overflow the stack of a thread.
_MAX_DEPTH = 100
# What JSON may have around a value.
_BLANKS = " \t\n\r"
# A text without an end goes to the end of the message: else each quote in it would begin a search.
_SIGNS = re.compile(r'"(?:[^"\\]|\\.?)*"?|([\[{])|([\]}])', re.DOTALL)
_WORDS = {None: "null", True: "true", False: "false"}
# With escapes: half a surrogate pair, which a client may send, is no text without them.
_ENCODER = DjangoJSONEncoder(separators=(",", ":"), allow_nan=False)


# The answer in a room without a history and without presence.
_PLAIN = {"position": None, "recovered": True, "missed": 0}
_PLAIN_TEXT = _ENCODER.encode(_PLAIN)


class Malformed(Exception):
    """The reason why a client's message is none of the subprotocol."""


class Refused(Exception):
    """A request is answered by an error."""

    def __init__(self, code: Code, text: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.text = TEXTS[code] if text is None else text


@dataclass(slots=True)
class Request:
    """
    One message of a client.

    Attributes:
        kind: The kind of request.
        id: The client's own name for it, as JSON; None where no answer is wanted.
        room: The name of the room.
        event: The name of the event.
        since: The position from which the client joins.
        size: Bytes of the message.
        written: The event's data, or what others are to see of the connection, as JSON. It is read
            when the request's turn has come: in memory a value may take thirty times as much.
    """

    kind: Kind
    id: str | None = None
    room: str = ""
    event: str = ""
    since: str | None = None
    size: int = 0
    written: str = "null"

    @property
    def value(self) -> Any:
        """The value of :attr:`written`."""
        return scan(self.written, 0)[0]

    @property
    def memory(self) -> int:
        """Bytes that it takes while it waits: one character may make four bytes of each."""
        texts = (self.id, self.room, self.event, self.since, self.written)
        return getsizeof(self) + sum(map(getsizeof, texts))


#: The names of an event's room and of itself, the request's id, the data as JSON, and its bytes.
EventParts: TypeAlias = "tuple[str, str, str | None, str, int]"

#: Returns the parts of an event; None for other messages, and for events that :func:`read` reads.
read_event = _core.read_event


def event_request(event: EventParts) -> Request:
    """Returns what :func:`read_event` has read as a request."""
    room, name, its_id, data, size = event
    return Request("event", its_id, room, name, size=size, written=data)


def read(message: str | bytes, most: int) -> Request:
    """
    Reads a message of a client that :func:`read_event` does not.

    Args:
        message: The message.
        most: Characters that one may have which is not written as usual.

    Raises:
        Malformed: It is none, or has more.
    """
    if not isinstance(message, str):
        raise Malformed("binary message")
    if (join := _core.read_join(message)) is not None:
        name, its_id, since, info, is_update = join
        kind: Kind = "update" if is_update else "join"
        return Request(kind, its_id, name, "", since, len(message), info or "null")
    if len(message) > most:
        raise Malformed(f"a message such as this may have {most} characters")
    if len(message) > _MAX_DEPTH and message.count("[") + message.count("{") > _MAX_DEPTH:
        _refuse_depth(message)
    written = message.strip(_BLANKS)
    try:
        found, end = _DECODER.raw_decode(written)
    except (ValueError, RecursionError):
        raise Malformed("no JSON") from None
    if end != len(written):
        raise Malformed("no JSON")
    if not isinstance(found, dict):
        raise Malformed("no object")
    answered = _id(found)
    kinds: tuple[Kind, ...] = ("join", "leave", "update")
    for kind in kinds:
        if kind in found:
            return _about_room(kind, found, answered, len(message))
    if "to" in found or "event" in found:
        room, event = found.get("to"), found.get("event")
        if not isinstance(room, str) or not isinstance(event, str):
            raise Malformed("an event needs a text as to and as event")
        size = len(message.encode("utf-8", "surrogatepass"))
        return Request("event", answered, room, event, None, size, text(found.get("data")))
    if found.get("ping") == 1 and found["ping"] is not True:
        return Request("ping")
    raise Malformed("no join, leave, event, update or ping")


def _about_room(kind: Kind, found: dict[str, Any], answered: str | None, size: int) -> Request:
    room, since = found[kind], None
    if not isinstance(room, str):
        raise Malformed(f"{kind} needs the name of a room")
    if answered is None:
        raise Malformed(f"{kind} needs an id")
    if kind == "join" and "since" in found:
        since = found["since"]
        if not isinstance(since, str):
            raise Malformed("since must be a text")
    return Request(kind, answered, room, "", since, size, text(found.get("info")))


def _id(found: dict[str, Any]) -> str | None:
    if "id" not in found:
        return None
    answered = found["id"]
    if isinstance(answered, bool) or not isinstance(answered, (int, float, str)):
        raise Malformed("an id is a number or a text")
    return text(answered)


def _no_number(_: str) -> NoReturn:
    raise ValueError


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        # No answer could have it.
        raise ValueError(text)
    return number


_DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)
#: Returns the value of JSON that the engine has read, from a place on, and its end.
scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def _refuse_depth(message: str) -> None:
    depth = 0
    for sign in _SIGNS.finditer(message):
        if sign[1]:
            depth += 1
            if depth > _MAX_DEPTH:
                raise Malformed("nested too deeply")
        elif sign[2]:
            depth -= 1


def text(data: Any) -> str:
    """
    Returns data as JSON.

    Raises:
        TypeError, ValueError: JSON cannot represent it.
    """
    # The encoder takes ten times as long for these.
    if data is None or data is True or data is False:
        return _WORDS[data]
    if type(data) is str:
        return encode_basestring_ascii(data)
    return repr(data) if type(data) is int else _ENCODER.encode(data)


def size(data: Any) -> int:
    """Returns the bytes of data as a page sends it."""
    written = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return len(written.encode("utf-8", "surrogatepass"))


def joined(request_id: str | None, told: dict[str, Any]) -> str:
    """Returns the answer to a join, as :func:`answer`; ``told`` is most often short and flat."""
    if told == _PLAIN:
        return f'{{"id":{request_id},"ok":{_PLAIN_TEXT}}}'
    values = ",".join([f'"{name}":{text(each)}' for name, each in told.items()])
    return f'{{"id":{request_id},"ok":{{{values}}}}}'


def error(request_id: str, refused: Refused) -> str:
    """Returns the answer to a request that is refused."""
    told = {"code": refused.code, "text": refused.text}
    return f'{{"id":{request_id},"error":{text(told)}}}'


def member(facts: dict[str, Any], connection: str, said: str | None) -> str:
    """
    Returns a member with one connection as JSON.

    Args:
        facts: The member's key and user, and since when it is there.
        connection: The connection's id.
        said: The info as JSON; None without.
    """
    info = said or "null"
    connections = f'[{{"id":{text(connection)},"info":{info}}}]'
    return f'{text(facts)[:-1]},"info":{info},"connections":{connections}}}'


def event(request: Request, sender: str) -> str:
    """Returns an event as other members get it, from after the room's name on."""
    # As the engine writes it when it passes the event on.
    name = encode_basestring(request.event)
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            name = text(request.event)
    return f',"event":{name},"data":{request.written},"from":{sender}}}'

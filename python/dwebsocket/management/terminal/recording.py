"""Conversations in files: a message a line, as JSON."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from dwebsocket.compat.system import monotonic

if TYPE_CHECKING:
    from collections.abc import Iterator

    Message = str | bytes

# The latest time of an entry, in seconds: 31 years.
_MOST_S = 1e9


@dataclass(frozen=True)
class Entry:
    """
    One message of a conversation.

    Attributes:
        at: Seconds since the connection was opened.
        by: ``"client"`` or ``"server"``.
        message: The message.
    """

    at: float
    by: str
    message: Message

    def line(self) -> str:
        """Returns it as a line of a file."""
        content = (
            {"text": self.message}
            if isinstance(self.message, str)
            else {"base64": base64.b64encode(self.message).decode()}
        )
        fields = {"at": round(self.at, 3), "by": self.by, **content}
        return json.dumps(fields, ensure_ascii=False)

    @classmethod
    def parse(cls, line: str) -> Entry:
        """
        Reads a line.

        Raises:
            ValueError: It is none; the text says why.
        """
        fields = json.loads(line)
        if not isinstance(fields, dict) or fields.get("by") not in ("client", "server"):
            raise ValueError('it has no "by" of "client" or "server"')
        at, text, encoded = (fields.get(name) for name in ("at", "text", "base64"))
        if isinstance(at, bool) or not isinstance(at, (int, float)) or not 0 <= at <= _MOST_S:
            raise ValueError('it has no "at" in seconds')
        if isinstance(text, str):
            try:
                text.encode()
            except UnicodeError as error:
                raise ValueError(f'its "text" is none: {error}') from None
            return cls(at, fields["by"], text)
        if not isinstance(encoded, str):
            raise ValueError('it has neither "text" nor "base64"')
        try:
            return cls(at, fields["by"], base64.b64decode(encoded, validate=True))
        except binascii.Error as error:
            raise ValueError(f'its "base64" is none: {error}') from None


class Recorder:
    """Writes entries to a file as they come. Any thread may use it."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._begun_at = monotonic()

    def note(self, by: str, message: Message) -> None:
        """Adds a message."""
        entry = Entry(monotonic() - self._begun_at, by, message)
        # One write a line, so that lines of two threads do not mix.
        self._file.write(entry.line() + "\n")
        self._file.flush()


def read(file: TextIO) -> Iterator[Entry]:
    """
    Reads a recorded conversation.

    Raises:
        ValueError: A line is none of one; the text has its number.
    """
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield Entry.parse(line)
            except RecursionError:
                raise ValueError(f"line {number}: it is nested too deeply") from None
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None

"""The arguments of calls of ``request.websocket``: checked, and as they go out."""

from __future__ import annotations

import json
import math
import sys
from numbers import Real
from typing import TYPE_CHECKING, Any

from django.core.serializers.json import DjangoJSONEncoder

from dwebsocket import _core
from dwebsocket.exceptions import InvalidMessage

if TYPE_CHECKING:
    Message = str | bytes
    #: The types of messages that can be sent.
    Binary = bytes | bytearray | memoryview
    Sendable = str | Binary
    # A message to send, and whether as binary; None decides by its type and contents.
    Frame = tuple[Message, bool | None]

_MAX_REASON_BYTES = 123
# No selector takes a longer time than some 24 days.
_LONGEST_S = 2e6
# How the messages begin that dwebsocket itself sends to members of groups.
_OWN = '{"group":'
_OWN_BYTES = _OWN.encode()


def refused_code(code: int) -> ValueError:
    """Returns the error of a close code that must not be sent (RFC 6455 section 7.4)."""
    return ValueError(f"close code {code} must not be sent: use 1000-1003, 1007-1014 or 3000-4999")


def as_bytes(message: Any) -> bytes:
    """Returns a message that is no text; raises TypeError if it is none at all."""
    if isinstance(message, bytes):
        return message
    if isinstance(message, (bytearray, memoryview)):
        return bytes(message)
    name = type(message).__name__
    raise TypeError(f"a message must be str, bytes, bytearray or memoryview, not {name}")


def as_text(message: Any) -> Frame:
    """Returns the frame of a text message; raises as :func:`as_bytes`."""
    return apart(message if isinstance(message, str) else as_bytes(message)), False


def as_binary(message: Any) -> Frame:
    """Returns the frame of a binary message; raises as :func:`as_bytes`, for ``str`` too."""
    if isinstance(message, str):
        raise TypeError("this takes bytes, not str: encode it, or use send_text()")
    return as_bytes(message), True


def as_json(data: Any, kwargs: dict[str, Any]) -> Frame:
    """Returns the frame of ``data`` as JSON; raises TypeError if JSON cannot represent it."""
    return apart(json.dumps(data, **{"cls": DjangoJSONEncoder, **kwargs})), False


def apart(text: Any) -> Any:
    """
    Returns a text that no client takes for a message of dwebsocket itself; others as they are.

    It may be what a member of a group has sent, and is relayed. The blank changes no JSON.
    """
    if isinstance(text, str):
        return f" {text}" if text.startswith(_OWN) else text
    if isinstance(text, bytes):
        return b" " + text if text.startswith(_OWN_BYTES) else text
    return text


def parsed(message: Message, kwargs: dict[str, Any]) -> Any:
    """Parses a message as JSON; raises InvalidMessage if it is none."""
    try:
        return json.loads(message, **kwargs)
    except RecursionError:
        raise InvalidMessage("the message is no JSON: it is nested too deeply") from None
    except ValueError as error:
        # A number that is too long raises a bare ValueError. Subclasses of a project's own come
        # from its hooks.
        if type(error) not in (json.JSONDecodeError, UnicodeDecodeError, ValueError):
            raise
        raise InvalidMessage(f"the message is no JSON: {error}") from error


def check_callable(what: str, function: object) -> None:
    """Raises TypeError if ``function`` cannot be called."""
    if not callable(function):
        raise TypeError(f"{what} takes a function, not {type(function).__name__}")


def as_close(code: Any, reason: Any) -> tuple[int, str]:
    """
    Returns a close code and its reason; None stands for 1000, and for no reason.

    Raises:
        TypeError: A code that is no ``int``, or a reason that is neither text nor bytes.
        ValueError: A number that is no close code, or a reason that is no UTF-8.
    """
    if code is None:
        code = 1000
    _check_code(code)
    if reason is None:
        reason = ""
    elif not isinstance(reason, str):
        reason = as_bytes(reason).decode("utf-8")
    return code, reason


def check_close(code: Any, reason: Any) -> None:
    """
    Checks a close code and its reason.

    Raises:
        TypeError: A code that is no ``int``, or a reason that is no ``str``.
        ValueError: A code that RFC 6455 forbids to send, or a reason that does not fit.
    """
    _check_code(code)
    if not isinstance(reason, str):
        raise TypeError(f"a close reason must be a str, not {type(reason).__name__}")
    if not _core.may_send_close_code(code):
        raise refused_code(code)
    if len(reason.encode()) > _MAX_REASON_BYTES:
        raise ValueError(f"close reason {reason!r} has more than {_MAX_REASON_BYTES} bytes")


def _check_code(code: Any) -> None:
    if isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(f"a close code must be an int, not {type(code).__name__}")
    if not 0 <= code <= 0xFFFF:
        raise refused_code(code)


def check_timeout(
    timeout: float | None, what: str = "timeout", *, least: float = 0, is_optional: bool = True
) -> None:
    """
    Checks a time that a caller gives: NaN would stop all timers of a hub of green threads.

    Args:
        timeout: Seconds.
        what: The name of the argument.
        least: The least one that the call takes.
        is_optional: Whether it takes None.

    Raises:
        TypeError: It is no number.
        ValueError: It is less than ``least``, NaN, or larger than any ``float``.
    """
    if timeout is None and is_optional:
        return
    expected = "None, 0 or a number of seconds" if is_optional else "0 or a number of seconds"
    # The first two are the fast ones.
    if not isinstance(timeout, (int, float, Real)):
        raise TypeError(f"{what} must be {expected}, not {type(timeout).__name__}")
    if not (least <= timeout <= sys.float_info.max or timeout == math.inf):
        raise ValueError(f"{what} must be {expected}, not {timeout!r}")


def as_timeout(timeout: float | None) -> float | None:
    """Returns a time for calls of the system: None where it is too long for these."""
    check_timeout(timeout)
    return None if timeout is not None and timeout > _LONGEST_S else timeout

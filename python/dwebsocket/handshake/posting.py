"""
Messages that clients post to a connection of the fallback.

The connection's id in the URL holds a key that cannot be guessed, the time, and a seal over these,
the path and the session: so the id alone, or the id with another session, is refused. After a day
an id is refused as well: one of a process that has ended is not worth a question for ever.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import secrets
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.http import HttpResponse
from django.utils.crypto import salted_hmac

from dwebsocket import _core, clock
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.handshake import forwarding, origin
from dwebsocket.handshake.refusal import refuse
from dwebsocket.registry import Who

if TYPE_CHECKING:
    from django.http import HttpRequest

    from dwebsocket.conf import Options
    from dwebsocket.handshake.forwarding import Part

_log = logging.getLogger("dwebsocket")

_KEY_BYTES = _SEAL_BYTES = 16
_TIME_BYTES = 4
#: Seconds after which an id is refused.
LIFETIME_S = 24 * 60 * 60
#: The last one that JavaScript counts up to.
LAST_NUMBER = 2**53
# A character of a text takes up to six in JSON, as ``\u0000``. A client's last message may go with
# smaller ones of so many bytes.
_JSON_FACTOR, _BATCH_BYTES = 6, 128 * 1024
_MAX_REASON_BYTES = 123
_RETRY_AFTER_S = 1


def address(request: HttpRequest) -> tuple[bytes, str]:
    """Gives a new key for the connection that a request opens, and the id for its client."""
    node = forwarding.node().number
    key = node + secrets.token_bytes(_KEY_BYTES - len(node))
    made = int(clock.wall()).to_bytes(_TIME_BYTES, "big")
    return key, _encode(key + made + _seal(key + made, request, settings.SECRET_KEY))


def answer(request: HttpRequest, options: Options) -> HttpResponse:
    """
    Takes the messages of a POST.

    Returns:
        204 when they are taken, now or before; 403 for a page that may not connect; 410 when there
        is no such connection for this client; 413 for a message that is too large, and 503 when
        the client has to repeat it later; 400 for anything malformed.

    Raises:
        DisallowedHost: As any request with a Host that is not the site's.
    """
    objection = origin.objection(request, options.allowed_origins, required=options.require_origin)
    if objection is not None:
        return refuse(request, 403, objection)
    key = key_of(request)
    if key is None:
        return short(410, "There is no such connection.")
    size = _size_of(request)
    if size > options.max_message_size * _JSON_FACTOR + _BATCH_BYTES:
        return refuse(request, 413, f"The body has {size} bytes.", "info")
    try:
        number, parts = _read(_body_of(request, size))
    except ValueError as error:
        return refuse(request, 400, f"The body is no JSON with n and messages: {error}.", "info")
    except OSError:
        return refuse(request, 400, "The client has not sent the whole body.", "info")
    try:
        taken = forwarding.post(key, number, parts)
    except forwarding.Gone:
        taken = "over"
    except forwarding.Doubtful:
        return later("The process that has the connection does not answer now.")
    except GroupUnavailable as error:
        _log.warning("A message of the fallback did not reach its process: %s", error)
        return later("The process that has the connection cannot be reached now.")
    if taken == "taken":
        return short(204)
    if taken == "busy":
        return later("The view has not taken the messages before this one yet.")
    if taken == "too large":
        limit = f"{options.max_message_size} bytes of WEBSOCKET_MAX_MESSAGE_SIZE"
        return refuse(request, 413, f"A message is larger than the {limit}.", "info")
    if taken == "gap":
        return refuse(request, 400, f"Posts before that of n={number} are missing.", "info")
    return short(410, "The connection has ended.")


def later(text: str) -> HttpResponse:
    """Gives the response to a request that the client has to repeat."""
    response = short(503, text)
    response["Retry-After"] = str(_RETRY_AFTER_S)
    return response


def short(status: int, text: str = "") -> HttpResponse:
    """Gives a response with a line of text, or none."""
    body = f"{text}\n" if text else ""
    response = HttpResponse(body, status=status, content_type="text/plain; charset=utf-8")
    response["Cache-Control"] = "no-store"
    return response


def _encode(code: bytes) -> str:
    return base64.urlsafe_b64encode(code).rstrip(b"=").decode()


def _seal(name: bytes, request: HttpRequest, secret: str | bytes) -> bytes:
    value = name + f"\0{request.path}\0{_owner(request)}".encode()
    sealed = salted_hmac("dwebsocket.fallback", value, secret, algorithm="sha256")
    return sealed.digest()[:_SEAL_BYTES]


def _owner(request: HttpRequest) -> str:
    """Gives the session of a request, or the user where no session has a key that lasts."""
    session = getattr(request, "session", None)
    key = getattr(session, "session_key", None)
    # The key of a session in a cookie is the cookie, which changes.
    if key and settings.SESSION_ENGINE != "django.contrib.sessions.backends.signed_cookies":
        return f"session {key}"
    user = Who.of(request).user
    return f"user {user}" if user else ""


def key_of(request: HttpRequest) -> bytes | None:
    """Gives the key in a request's id; None when it is not of this client and path, or too old."""
    given = request.GET.get("id", "")
    try:
        code = base64.b64decode(given.encode() + b"=" * (-len(given) % 4), b"-_", validate=True)
    except (ValueError, UnicodeEncodeError):
        return None
    name, seal = code[:-_SEAL_BYTES], code[-_SEAL_BYTES:]
    key, made = name[:_KEY_BYTES], int.from_bytes(name[_KEY_BYTES:], "big")
    for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        if hmac.compare_digest(seal, _seal(name, request, secret)):
            return key if clock.wall() - made < LIFETIME_S else None
    return None


def _size_of(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0


def _body_of(request: HttpRequest, size: int) -> bytes:
    """Gives the body, which Django's own limit on bodies does not concern."""
    return request.read(size)


def _read(body: bytes) -> tuple[int, list[Part]]:
    """
    Gives the number of a post and its parts.

    Raises:
        ValueError: It is malformed.
    """
    try:
        post = json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(post, dict) or not isinstance(post.get("messages"), list):
        raise ValueError("messages must be a list")
    number = post.get("n")
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number <= LAST_NUMBER:
        raise ValueError("n must be a number of 1 or more")
    return number, [_part(message) for message in post["messages"]]


def _part(message: Any) -> Part:
    match message:
        case {"text": str(text)}:
            # Lone surrogates are no text; this raises a `ValueError`.
            text.encode()
            return text
        case {"binary": str(text)}:
            return base64.b64decode(text, validate=True)
        case {"close": dict(close)}:
            return _close(close)
    raise ValueError("a message has text, binary or close")


def _close(close: dict[str, Any]) -> tuple[int | None, str]:
    code, reason = close.get("code"), close.get("reason", "")
    if not isinstance(reason, str) or len(reason.encode()) > _MAX_REASON_BYTES:
        raise ValueError(f"a close reason has at most {_MAX_REASON_BYTES} bytes")
    if code is None:
        return None, ""
    if isinstance(code, bool) or not isinstance(code, int) or not 0 <= code < 2**16:
        raise ValueError("a close code is a number")
    if not _core.may_send_close_code(code):
        raise ValueError(f"close code {code} must not be sent")
    return code, reason

"""
Messages that clients post to a connection of the fallback.

The connection's id in the URL holds a key that cannot be guessed, the time, and a seal over these,
the path and the session: so the id alone, or the id with another session, is refused. After a day
an id is refused as well: one of a process that has ended is not worth a question for ever.
"""

from __future__ import annotations

import base64
import hmac
import logging
import secrets
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.http import HttpResponse
from django.utils.crypto import salted_hmac

from dwebsocket import _core
from dwebsocket.compat.cheroot import reads_whole_chunks
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.handshake.fallback import forwarding
from dwebsocket.handshake.refusal import refuse
from dwebsocket.telemetry import clock
from dwebsocket.users.authentication import is_kept
from dwebsocket.users.registry import Who

if TYPE_CHECKING:
    from django.http import HttpRequest

    from dwebsocket.conf import Options

_log = logging.getLogger("dwebsocket")

_KEY_BYTES = _SEAL_BYTES = 16
_TIME_BYTES = 4
#: Seconds after which an id is refused.
LIFETIME_S = 24 * 60 * 60
#: The last one that JavaScript counts up to.
LAST_NUMBER = 2**53
_CHUNK_BYTES = 64 * 1024
_RETRY_AFTER_S = 1


def address(request: HttpRequest, realm: str) -> tuple[bytes, str]:
    """
    Returns a new key for the connection that a request opens, and the id for its client.

    Perhaps in an event loop: it asks for nothing that may query.
    """
    node = forwarding.node().number
    key = node + secrets.token_bytes(_KEY_BYTES - len(node))
    made = int(clock.wall()).to_bytes(_TIME_BYTES, "big")
    owner = _owner(request, realm)
    return key, _encode(key + made + _seal(key + made, request, owner, settings.SECRET_KEY))


def answer(request: HttpRequest, key: bytes, options: Options) -> HttpResponse:
    """
    Takes the messages of a POST for the connection with a key.

    Returns:
        204 when they are taken, now or before; 410 when the connection has ended; 413 for more than
        a body may have, and 503 when the client has to repeat it later; 411 for a body whose end
        this server does not tell; 400 for anything malformed.
    """
    size, most = _size_of(request), _core.Post.max_size(options.max_message_size)
    if size is not None and size > most:
        return refuse(request, 413, f"The body has {size} bytes.", "info")
    if (body := request if size is not None else _body_with_end(request)) is None:
        return refuse(request, 411, "This server needs a Content-Length.", "info")
    post = _core.Post(options.max_message_size)
    try:
        wrong = _read(body, most, post)
    except OSError:
        return refuse(request, 400, "The client has not sent the whole body.", "info")
    match wrong:
        case "no room", _:
            return later("There is no room for the messages now.")
        case "too much", why:
            return refuse(request, 413, f"The body is too much: {why}.", "info")
        case _, why:
            return refuse(request, 400, f"The body is no JSON with n and messages: {why}.", "info")
    try:
        taken = forwarding.post(key, post)
    except forwarding.Gone:
        taken = "over"
    except forwarding.Doubtful:
        return later("The process that has the connection does not answer now.")
    except GroupUnavailable as error:
        _log.warning("A message of the fallback did not reach its process: %s", error)
        return later("The process that has the connection cannot be reached now.")
    if taken == "taken" and post.is_too_large:
        limit = f"{options.max_message_size} bytes of WEBSOCKET_MAX_MESSAGE_SIZE"
        return refuse(request, 413, f"A message is larger than the {limit}.", "info")
    if taken == "taken":
        return short(204)
    if taken == "busy":
        return later("The view has not taken the messages before this one yet.")
    if taken == "gap":
        return refuse(request, 400, f"Posts before that of n={post.number} are missing.", "info")
    return short(410, "The connection has ended.")


def later(text: str) -> HttpResponse:
    """Returns the response to a request that the client has to repeat."""
    response = short(503, text)
    response["Retry-After"] = str(_RETRY_AFTER_S)
    return response


def short(status: int, text: str = "") -> HttpResponse:
    """Returns a response with a line of text, or none."""
    body = f"{text}\n" if text else ""
    response = HttpResponse(body, status=status, content_type="text/plain; charset=utf-8")
    response["Cache-Control"] = "no-store"
    return response


def _encode(code: bytes) -> str:
    return base64.urlsafe_b64encode(code).rstrip(b"=").decode()


def _seal(name: bytes, request: HttpRequest, owner: str, secret: str | bytes) -> bytes:
    value = name + f"\0{request.path}\0{owner}".encode()
    sealed = salted_hmac("dwebsocket.fallback", value, secret, algorithm="sha256")
    return sealed.digest()[:_SEAL_BYTES]


def _owner(request: HttpRequest, realm: str | None = None) -> str:
    """Returns the session of a request, or the user where no session has a key that lasts."""
    session = getattr(request, "session", None)
    key = getattr(session, "session_key", None)
    # The key of a session in a cookie is the cookie, which changes.
    if key and is_kept(session.__class__):
        return f"session {key}"
    user = Who.of(request, realm=realm).user_key
    return f"user {user}" if user else ""


def key_of(request: HttpRequest) -> bytes | None:
    """
    Returns the key in a request's id; None when it is not of this client and path, or too old.
    """
    given = request.GET.get("id", "")
    try:
        code = base64.b64decode(given + "=" * (-len(given) % 4), b"-_", validate=True)
    except ValueError:
        return None
    if len(code) != _KEY_BYTES + _TIME_BYTES + _SEAL_BYTES:
        # A longer name could hold a part of the path for which it was sealed.
        return None
    name, seal = code[:-_SEAL_BYTES], code[-_SEAL_BYTES:]
    key, made = name[:_KEY_BYTES], int.from_bytes(name[_KEY_BYTES:], "big")
    owner = _owner(request)
    for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        if hmac.compare_digest(seal, _seal(name, request, owner, secret)):
            return key if clock.wall() - made < LIFETIME_S else None
    return None


def _size_of(request: HttpRequest) -> int | None:
    try:
        return int(request.META["CONTENT_LENGTH"])
    except (KeyError, ValueError):
        return None


def _body_with_end(request: HttpRequest) -> Any:
    """
    Returns what gives a body of unknown size up to its end, or None.

    Under ASGI Django has read the whole body. Under WSGI it gives an empty one, so the server's own
    is read, if the server says that it ends, and reads no more of it at once than it is asked for.
    """
    if request.__dict__.get("scope") is not None:
        return request
    body = request.META["wsgi.input"]
    has_end = request.META.get("wsgi.input_terminated") and not reads_whole_chunks(body)
    return body if has_end else None


def _read(body: Any, most: int, post: _core.Post) -> tuple[str, str] | None:
    """Has the engine read a body, which Django's own limit on bodies does not concern."""
    left = most
    # One byte too many shows that the body is too large.
    while chunk := _next(body, min(left + 1, _CHUNK_BYTES)):
        if (left := left - len(chunk)) < 0:
            return "too much", f"it has more than {most} bytes"
        if (wrong := post.take_in(chunk)) is not None:
            return wrong
    return post.read()


def _next(body: Any, size: int) -> bytes:
    try:
        chunk: bytes = body.read(size)
    except Exception as error:
        # Each server has exceptions of its own for chunks that are malformed.
        raise OSError from error
    return chunk

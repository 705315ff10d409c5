"""
Functions that uWSGI 2.0 exports to its own plugins, and that Python code finds by name.

uWSGI has no function for applications that gives the bytes that it has read after a request.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def request_of_greenlet() -> int | None:
    """
    Returns the address of the request that this greenlet serves, in uWSGI's gevent loop.

    ``greenlet.uwsgi_wsgi_req``, which the loop sets. None elsewhere and where it is
    missing: the client's early bytes are lost then.
    """
    gevent = sys.modules.get("gevent")
    if gevent is None:
        return None
    address: int | None = getattr(gevent.getcurrent(), "uwsgi_wsgi_req", None)
    return address


def request_of_thread() -> int | None:
    """
    Returns the address of the request that this thread serves. For servers with several threads
    only.

    The C function ``threaded_current_wsgi_req``. None where it is missing, as
    :func:`request_of_greenlet`.
    """
    import ctypes

    current = _exported("threaded_current_wsgi_req", ctypes.c_void_p)
    address: int | None = None if current is None else current()
    return address


def body_reader() -> Callable[[int, int], bytes] | None:
    """
    Returns the function that reads at most so many bytes of the body of the request at an address.

    The C function ``uwsgi_proto_base_read_body``. None where it is missing, as
    :func:`request_of_greenlet`.
    """
    import ctypes

    takes = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    read_body = _exported("uwsgi_proto_base_read_body", ctypes.c_ssize_t, *takes)
    if read_body is None:
        return None

    def read(request: int, most: int) -> bytes:
        buffer = ctypes.create_string_buffer(most)
        length: int = read_body(request, buffer, most)
        return buffer.raw[: max(0, length)]

    return read


def _exported(name: str, returns: Any, *takes: Any) -> Any:
    """Returns a function of C; None where it is missing."""
    # Other servers' processes do not need it, and `dwebsocket.handshake.preloading` imports it for
    # uWSGI.
    import ctypes

    # A build that is a Python module does not export to the whole process.
    module = sys.modules.get("pyuwsgi")
    function = getattr(ctypes.CDLL(getattr(module, "__file__", None)), name, None)
    if function is not None:
        function.restype, function.argtypes = returns, takes
    return function

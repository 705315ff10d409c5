"""msgpack, versions 1.0 to 1.2: the encoding of channel layers' messages."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured

try:
    import msgpack
except ImportError as error:
    # Channels shows any error but an ImportError, which it replaces by one without the reason.
    raise ImproperlyConfigured(
        'The channel layer of dwebsocket needs msgpack: pip install "dwebsocket2[channels]"'
    ) from error


def pack(data: Any) -> bytes:
    """
    Returns data as bytes.

    Raises:
        TypeError: A value that has no encoding, such as a date.
        ValueError: A value that is too large.
    """
    try:
        packed: bytes = msgpack.packb(data)
    except OverflowError as error:
        raise ValueError(str(error)) from None
    return packed


def unpack(packed: bytes) -> Any:
    """
    Returns the data of :func:`pack`; a tuple comes back as a list.

    Raises:
        ValueError: Other bytes.
    """
    # By default only text is taken for the keys of a dict: for data of those who are not trusted.
    try:
        return msgpack.unpackb(packed, strict_map_key=False)
    except TypeError as error:
        # A key of a dict that is a list.
        raise ValueError(str(error)) from None

"""The calls that need the engine: each raises an error that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from dwebsocket.compat.system import needs_engine
from dwebsocket.exceptions import UnsupportedServer

if TYPE_CHECKING:
    from collections.abc import Callable


def unavailable(what: str) -> Callable[..., Any]:
    """
    Returns a function that raises :class:`UnsupportedServer` about ``what``, whatever it gets.
    """

    def call(*_: Any, **__: Any) -> Any:
        raise UnsupportedServer(needs_engine(what))

    return call


class Missing:
    """
    A class of the engine that cannot be used without it.

    Args:
        what: The part of the package that it is for, as the beginning of a sentence.
        makers: Its static methods.
    """

    _what: ClassVar[str]

    def __init_subclass__(cls, /, what: str, makers: tuple[str, ...] = ()) -> None:
        cls._what = what
        for name in makers:
            setattr(cls, name, staticmethod(unavailable(what)))

    def __init__(self, *_: Any, **__: Any) -> None:
        unavailable(self._what)()

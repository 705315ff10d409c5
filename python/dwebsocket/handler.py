"""`WebSocketHandler`: a class whose methods are called for each event of a connection."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpResponseNotAllowed

from dwebsocket import checks, conf, sign_out
from dwebsocket.groups.api import Group, group
from dwebsocket.groups.of_view import ViewGroups, filled
from dwebsocket.handshake import fallback
from dwebsocket.handshake.attributes import has_websocket, prepare
from dwebsocket.handshake.handler_start import HandlerStart
from dwebsocket.handshake.judge import Asked
from dwebsocket.handshake.refusal import refuse
from dwebsocket.handshake.upgrade import aupgrade, upgrade
from dwebsocket.runners.handler import Handled, Plan
from dwebsocket.runners.view import Detached

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from dwebsocket.groups.of_view import Wanted

__all__ = ["WebSocketHandler"]

checks.register()
sign_out.listen_soon()


class WebSocketHandler(Handled):
    """
    A view for many quiet WebSockets: no thread, task or stack between two messages.

    Subclasses override :meth:`connect`, :meth:`receive`, :meth:`disconnect` and :meth:`tick`, each
    a function or a coroutine function. There is one object a connection, whose own attributes last
    as long. Its methods are called one at a time, messages in their order. The language, the time
    zone and all else that middleware has set are in effect in each call; database connections are
    given back and a changed session is saved behind each.

    Every option of :func:`dwebsocket.accept_websocket` may be set as an attribute of the class.
    A class with a method ``get`` answers plain HTTP requests by it; others get 400.

    Attributes:
        groups: The groups that each connection joins as it opens, as of the decorators.
        resume: As of the decorators.
        presence: As of the decorators; a function of it takes the request, not the handler.
        every: Seconds between two calls of :meth:`tick`; None for no calls.
        websocket: The connection; None in ``get``.
        request: Its request.
        args: The URL's positional arguments.
        kwargs: The URL's named arguments.
    """

    groups: ClassVar[Wanted | None] = None
    resume: ClassVar[bool] = False
    presence: ClassVar[bool | Callable[..., Any]] = False
    every: ClassVar[float | None] = None
    # Those without a value here come from the settings.
    text_type: ClassVar[type[str | bytes] | Literal["str", "bytes"]]
    allowed_origins: ClassVar[Collection[str]]
    require_origin: ClassVar[bool]
    subprotocols: ClassVar[Collection[str]]
    fallback: ClassVar[bool]
    compression: ClassVar[bool | Mapping[str, bool | int]]
    max_message_size: ClassVar[int]
    max_frame_size: ClassVar[int | None]
    max_fragments: ClassVar[int]
    receive_buffer: ClassVar[int]
    max_messages_per_second: ClassVar[float | None]
    max_bytes_per_second: ClassVar[float | None]
    rate_timeout: ClassVar[float | None]
    ping_interval: ClassVar[float | None]
    ping_timeout: ClassVar[float | None]
    send_buffer: ClassVar[int]
    send_timeout: ClassVar[float | None]
    message_timeout: ClassVar[float | None]
    close_timeout: ClassVar[float]
    handshake_timeout: ClassVar[float | None]

    @property
    def user(self) -> Any:
        """The request's user, as ``request.user``."""
        return self.request.user

    def group(self, name: str, using: str = "default") -> Group:
        """
        Gives the group of a name that is filled in from the URL, as ``"room-{room}"``.

        Args:
            name: A template; ``{user.pk}`` is the user's primary key.
            using: As for :func:`dwebsocket.group`.

        Raises:
            UsageError: The URL has no such argument, or the user is anonymous.
            TypeError, ValueError: As :func:`dwebsocket.group`.
        """
        if isinstance(name, str) and "{" in name:
            name = filled(name, self.args, self.kwargs, getattr(self.request, "user", None))
        return group(name, using)

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        """
        Gives the view for the URL conf.

        Args:
            **initkwargs: Attributes of the class that differ for this view.

        Raises:
            TypeError: An attribute that the class does not have, or of the wrong type.
            ValueError: An option, or ``every``, with a value that it cannot have.
        """
        for name in initkwargs:
            if not hasattr(cls, name) and name not in conf.OPTION_NAMES:
                raise TypeError(f"{cls.__name__}.as_view() got an unknown attribute {name!r}")
        of_view: type[WebSocketHandler] = cls
        # A class of its own: objects of connections hold nothing but what differs among them.
        of_view = type(cls.__name__, (cls,), {**initkwargs, "__module__": cls.__module__})
        of_view.__qualname__, of_view.__doc__ = cls.__qualname__, cls.__doc__
        return _view_of(of_view)


def _groups_of(cls: type[WebSocketHandler]) -> ViewGroups | None:
    if cls.groups is not None:
        return ViewGroups(cls.__name__, cls.groups, resume=cls.resume, presence=cls.presence)
    if cls.resume:
        raise TypeError(f"{cls.__name__}.resume needs groups = […], which clients come back to")
    if cls.presence:
        raise TypeError(f"{cls.__name__}.presence needs groups = […], whose users are told")
    return None


def _view_of(cls: type[WebSocketHandler]) -> Callable[..., Any]:
    plan = cls._plan = Plan(cls, _every(cls))
    options = {name: getattr(cls, name) for name in conf.OPTION_NAMES if hasattr(cls, name)}
    overrides = conf.overrides(cls.__name__, options)
    groups = _groups_of(cls)
    new_start = functools.partial(HandlerStart, cls)
    accepts = not plan.has_connect
    get = getattr(cls, "get", None)

    def asked_of(request: HttpRequest, args: Any, kwargs: Any) -> Asked | None:
        if has_websocket(request) or (factory := prepare(request)) is None:
            return None
        return Asked(request, factory, detached, args, kwargs, overrides, groups, new_start)

    def page_of(request: HttpRequest, args: Any, kwargs: Any) -> Any:
        if get is None:
            return refuse(request, 400, "This address is for WebSockets only.")
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        handler: Any = cls()
        handler.request, handler.websocket = request, None
        handler.args, handler.kwargs = args, kwargs
        return functools.partial(handler.get, request, *args, **kwargs)

    if plan.has_async_view:

        async def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if fallback.asks(request, overrides):
                if (response := await fallback.aanswer(request, overrides)) is not None:
                    return response
            if (asked := asked_of(request, args, kwargs)) is not None:
                return await aupgrade(asked, accept=accepts)
            page = page_of(request, args, kwargs)
            if not isinstance(page, functools.partial):
                return page  # type: ignore[no-any-return]
            if iscoroutinefunction(get):
                return await page()  # type: ignore[no-any-return]
            return await sync_to_async(page)()  # type: ignore[no-any-return]

    else:

        def view(  # type: ignore[misc]
            request: HttpRequest, *args: Any, **kwargs: Any
        ) -> HttpResponseBase:
            if fallback.asks(request, overrides):
                if (response := fallback.answer(request, overrides)) is not None:
                    return response
            if (asked := asked_of(request, args, kwargs)) is not None:
                return upgrade(asked, accept=accepts)
            page = page_of(request, args, kwargs)
            return page() if isinstance(page, functools.partial) else page  # type: ignore[no-any-return]

    view.__name__, view.__qualname__ = cls.__name__, cls.__qualname__
    view.__doc__, view.__module__ = cls.__doc__, cls.__module__
    # As Django's `View.as_view()` has it.
    view.__dict__.update({"view_class": cls, "handles_websocket": True})
    view.__dict__["require_websocket" if get is None else "accept_websocket"] = True
    detached = Detached(view)
    detached.is_async = "connect" in plan.is_async
    return view


def _every(cls: type[WebSocketHandler]) -> float | None:
    every = cls.every
    if every is None:
        return None
    if isinstance(every, bool) or not isinstance(every, (int, float)) or not 0 < every < 1e9:
        raise ValueError(
            f"{cls.__name__}.every must be None or a number of seconds above 0, not {every!r}"
        )
    return float(every)

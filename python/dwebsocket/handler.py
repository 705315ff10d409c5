"""`WebSocketHandler`: a class whose methods are called for each event of a connection."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.utils.decorators import classonlymethod
from django.views import View

from dwebsocket import conf
from dwebsocket.api.beside import LONGEST_S
from dwebsocket.compat.django_views import call_without_transactions, with_transactions
from dwebsocket.conf import checks
from dwebsocket.groups.api import Group, group
from dwebsocket.groups.view_groups import ViewGroups, filled
from dwebsocket.handshake.handler_start import HandlerStart
from dwebsocket.handshake.refusal import refuse
from dwebsocket.handshake.upgrade import UpgradeRequest, aupgrade, upgrade
from dwebsocket.request import http_request
from dwebsocket.runners.handler import Handled, HandlerFacts
from dwebsocket.runners.view import Detached
from dwebsocket.users import sign_out

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from dwebsocket.groups.view_groups import Wanted
    from dwebsocket.typing import WebSocketRequest

__all__ = ["WebSocketHandler"]

checks.register()
sign_out.listen_soon()


# Attributes by which Django REST framework guards its own views, and no others.
_OF_REST_FRAMEWORK = ("authentication_classes", "permission_classes", "throttle_classes")
# The methods that the mixins of `django.contrib.auth` ask, which take a coroutine for a yes.
_ASKED = {"UserPassesTestMixin": "test_func", "PermissionRequiredMixin": "has_permission"}


class WebSocketHandler(Handled, View):
    """
    A view for many quiet WebSockets: no thread, task or stack between two messages.

    A class-based view of Django's: ``setup`` and ``dispatch`` are called for each request, before
    :meth:`connect`. So mixins such as ``LoginRequiredMixin``, and decorators of ``dispatch``, guard
    the handshake as they guard a page; the response that they give instead refuses it.

    Subclasses override :meth:`connect`, :meth:`receive`, :meth:`disconnect` and :meth:`tick`, each
    a function or a coroutine function. There is one object a connection, whose own attributes last
    as long. Its methods are called one at a time, messages in their order. The language, the time
    zone and all else that middleware has set are in effect in each call; database connections are
    given back and a changed session is saved after each.

    Every option of :func:`dwebsocket.accept_websocket` may be set as an attribute of the class.
    A class with methods such as ``get`` answers plain HTTP requests by them; others get 400.

    Attributes:
        groups: The groups that each connection joins as it opens, as of the decorators.
        resume: As of the decorators.
        presence: As of the decorators; a function of it takes the request, not the handler.
        every: Seconds between two calls of :meth:`tick`; None for no calls.
        survives: Whether its connections move to another process when theirs is replaced: see
            ``docs/deploys.md``.
        version: Any comparable value. Connections move to a handler of the same version alone.
        state: A dict of values that JSON can represent, empty at first. It moves with the
            connection of a handler that survives.
        websocket: The connection; None until :meth:`connect`, and in ``get``.
        request: Its request.
        args: The URL's positional arguments.
        kwargs: The URL's named arguments.
    """

    # Else mypy compares those of both base classes in each subclass with a mixin.
    request: WebSocketRequest

    groups: ClassVar[Wanted | None] = None
    resume: ClassVar[bool] = False
    presence: ClassVar[bool | Callable[..., Any]] = False
    every: ClassVar[float | None] = None
    survives: ClassVar[bool] = False
    version: ClassVar[Any] = None
    # Options without a value here come from the settings.
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

    # Attributes of the class that `as_view` makes.
    _overrides: ClassVar[Mapping[str, Any]]
    _view_groups: ClassVar[ViewGroups | None]
    _detached: ClassVar[Detached]
    _has_pages: ClassVar[bool]

    @property
    def user(self) -> Any:
        """The request's user, as ``request.user``."""
        return self.request.user

    def group(self, name: str, using: str = "default") -> Group:
        """
        Returns the group of a name that is filled in from the URL, as ``"room-{room}"``.

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

    @classonlymethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        """
        Returns the view for the URL conf.

        Example::

            urlpatterns = [path("chat/<room>/", Chat.as_view(every=30))]

        Args:
            **initkwargs: Attributes of the class that differ for this view.

        Raises:
            TypeError: An attribute that the class does not have, or of the wrong type; a guard that
                would never be asked, such as a mixin behind ``WebSocketHandler``; or a name with an
                underscore in place of one that ``WebSocketHandler`` needs itself.
            ValueError: An option, or ``every``, with a value that it cannot have.
        """
        for name in initkwargs:
            if not hasattr(cls, name) and name not in conf.OPTION_NAMES:
                raise TypeError(f"{cls.__name__}.as_view() got an unknown attribute {name!r}")
        refuse_own_names(cls, WebSocketHandler, Handled)
        own = {**initkwargs, "__module__": cls.__module__}
        if hasattr(cls, "get") and not hasattr(cls, "head"):
            # Django's `setup` would put it into each object, which would refer to itself.
            own["head"] = cls.get
        # A class of its own: objects of connections hold nothing but what differs among them.
        view_class: type[WebSocketHandler] = type(cls.__name__, (cls,), own)
        view_class.__qualname__, view_class.__doc__ = cls.__qualname__, cls.__doc__
        view_class._plan_view()
        _refuse_unasked_guards(view_class)
        view = super(WebSocketHandler, view_class).as_view()
        if view_class._plan.has_async_view:
            view = _awaiting(view_class, view)
        elif view_class._plan.has_connect:
            # As views that decide.
            call_without_transactions(view)
        view.__name__, view.__qualname__ = cls.__name__, cls.__qualname__
        view.__dict__.update(view_initkwargs=initkwargs, handles_websocket=True)
        # As on views that are decorated.
        view.__dict__.update(accept_websocket=True, require_websocket=not view_class._has_pages)
        view_class._detached = Detached(view)
        view_class._detached.is_async = "connect" in view_class._plan.is_async
        return view

    @classmethod
    def _plan_view(cls) -> None:
        """Reads what all connections of a view have in common."""
        dispatches = [vars(each).get("dispatch") for each in cls.__mro__]
        answers_async = any(map(iscoroutinefunction, dispatches)) or cls.view_is_async
        if not isinstance(cls.survives, bool):
            raise TypeError(f"{cls.__name__}.survives must be True or False, not {cls.survives!r}")
        cls._plan = HandlerFacts(cls, _every(cls), answers_async=answers_async)
        options = {name: getattr(cls, name) for name in conf.OPTION_NAMES if hasattr(cls, name)}
        cls._overrides = conf.overrides(cls.__name__, options)
        cls._view_groups = _groups_of(cls)
        pages = [name for name in cls.http_method_names if name != "options"]
        cls._has_pages = any(hasattr(cls, name) for name in pages)

    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        """Begins with a request, as ``View.setup`` of Django: called first, once an object."""
        self.websocket = None  # type: ignore[assignment]
        super().setup(request, *args, **kwargs)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """
        Answers a request, as ``View.dispatch`` of Django: a handshake too, before :meth:`connect`.

        Returns:
            The response; a coroutine for it in a class that has coroutine functions.
        """
        if self._plan.has_async_view:
            return self._adispatch(request, *args, **kwargs)
        accept = not self._plan.has_connect
        if (response := upgrade(self._asked(request), accept=accept)) is not None:
            return response
        return self._page(request, *args, **kwargs)

    async def _adispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        accept = not self._plan.has_connect
        if (response := await aupgrade(self._asked(request), accept=accept)) is not None:
            return response
        page = self._page if self.view_is_async else sync_to_async(self._page)
        return await _response_of(page(request, *args, **kwargs))

    def _asked(self, request: HttpRequest) -> UpgradeRequest:
        view = self._detached if "get" in self.http_method_names else None
        # Its own arguments: those that its guards have seen.
        asked = (request, view, self.args, self.kwargs, self._overrides)
        return UpgradeRequest(*asked, self._view_groups, functools.partial(HandlerStart, self))

    def _page(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if not self._has_pages:
            return refuse(http_request(request), 400, "This address is for WebSockets only.")
        page = with_transactions(super().dispatch, http_request(request))
        return page(request, *args, **kwargs)


async def _response_of(answer: Any) -> HttpResponseBase:
    """Returns a response, awaiting it if need be: guards give it at once."""
    while inspect.isawaitable(answer):
        answer = await answer
    return answer  # type: ignore[no-any-return]


def _awaiting(cls: type[WebSocketHandler], made: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the async form of a view that Django has made."""
    guards = (cls.setup, cls.dispatch)
    is_guarded = guards != (WebSocketHandler.setup, WebSocketHandler.dispatch)

    def begin(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return made(request, *args, **kwargs)

    async def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        # Django's guards are sync, and read the session.
        call = sync_to_async(begin) if is_guarded else begin
        return await _response_of(call(request, *args, **kwargs))

    view.__doc__, view.__module__ = made.__doc__, made.__module__
    view.__dict__.update(vars(made))
    return view


def refuse_own_names(cls: type, base: type, *parts: type) -> None:
    """
    Raises for a class with a private name of ours, such as ``_turn``: no method would be called.

    Args:
        cls: A class of a project.
        base: The class that it derives from.
        *parts: Classes that this one derives from, and has names of.

    Raises:
        TypeError: There is one.
    """
    ours = {name for each in (base, *parts) for name in (*vars(each), *each.__annotations__)}
    for each in cls.__mro__[: cls.__mro__.index(base)]:
        if each.__module__.startswith("dwebsocket."):
            continue
        # Python 3.13 knows those of `self`, too.
        for name in (*vars(each), *getattr(each, "__static_attributes__", ())):
            if name in ours and name.startswith("_") and not name.endswith("__"):
                raise TypeError(
                    f"{each.__name__}.{name} stands in place of a part of {base.__name__}: "
                    "choose another name"
                )


def _refuse_unasked_guards(cls: type[WebSocketHandler]) -> None:
    """
    Raises for a class with a guard that guards nothing.

    Raises:
        TypeError: There is one.
    """
    mro = cls.__mro__
    for each in mro[mro.index(WebSocketHandler) + 1 :]:
        if "dispatch" in vars(each) and each is not View:
            raise TypeError(
                f"{cls.__name__}: {each.__name__}.dispatch would never be called: name "
                f"{each.__name__} before WebSocketHandler"
            )
    for number, each in enumerate(mro):
        if each.__module__ != "django.contrib.auth.mixins":
            continue
        name = _ASKED.get(each.__name__, "")
        derived = [other for other in mro[:number] if issubclass(other, each)]
        # A project's dispatch may await it.
        is_awaited = any(iscoroutinefunction(vars(other).get("dispatch")) for other in derived)
        if iscoroutinefunction(getattr(cls, name, None)) and not is_awaited:
            raise TypeError(
                f"{cls.__name__}.{name} is a coroutine function, which {each.__name__} takes for "
                "a yes: make it sync, or write an async dispatch"
            )
    is_open = not cls._plan.has_connect and cls.dispatch is WebSocketHandler.dispatch
    for name in _OF_REST_FRAMEWORK:
        if is_open and hasattr(cls, name):
            raise TypeError(
                f"{cls.__name__}.{name} has no effect: only views of Django REST framework have "
                "it. Decorate the method get of such a view, or ask in connect or dispatch"
            )


def _groups_of(cls: type[WebSocketHandler]) -> ViewGroups | None:
    if cls.groups is not None:
        return ViewGroups(cls.__name__, cls.groups, resume=cls.resume, presence=cls.presence)
    if cls.resume:
        raise TypeError(f"{cls.__name__}.resume needs groups = […], which clients come back to")
    if cls.presence:
        raise TypeError(f"{cls.__name__}.presence needs groups = […], whose users are told")
    return None


def _every(cls: type[WebSocketHandler]) -> float | None:
    every = cls.every
    if every is None:
        return None
    if isinstance(every, bool) or not isinstance(every, (int, float)) or not 0 < every < LONGEST_S:
        raise ValueError(
            f"{cls.__name__}.every must be None or a number of seconds above 0, not {every!r}"
        )
    return float(every)

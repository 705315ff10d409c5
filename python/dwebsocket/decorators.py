"""`@accept_websocket`, `@require_websocket`, and `@websocket`, another name for the first."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, overload

from asgiref.sync import async_to_sync
from django.conf import settings
from django.views import View

from dwebsocket import conf
from dwebsocket.compat.django_views import (
    call_without_transactions,
    class_based,
    class_of,
    is_async,
    name_of,
    with_transactions,
)
from dwebsocket.conf import checks
from dwebsocket.handshake import preloading
from dwebsocket.users import sign_out

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Concatenate

    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase
    from typing_extensions import Unpack

    from dwebsocket.groups.view_groups import ViewGroups, Wanted
    from dwebsocket.runners.view import Detached
    from dwebsocket.typing import ViewDecorator, ViewOptions

    WEBSOCKET_MIDDLEWARE_INSTALLED: bool

P = ParamSpec("P")


class _FromSettings:
    """The default of an option in the signatures: the setting counts."""

    def __repr__(self) -> str:
        return "as in the settings"


# The modules of decorators that refuse requests.
_GUARDS = ("django.contrib.auth.decorators", "django_ratelimit.decorators")

__all__ = ["accept_websocket", "require_websocket", "websocket"]

checks.register()
sign_out.listen_soon()


def __getattr__(name: str) -> Any:
    # A constant in the original; computed here when it is read.
    if name == "WEBSOCKET_MIDDLEWARE_INSTALLED":
        return "dwebsocket.middleware.WebSocketMiddleware" in settings.MIDDLEWARE
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@overload
def accept_websocket(
    view: Callable[Concatenate[Any, P], HttpResponseBase | None], /
) -> Callable[Concatenate[Any, P], HttpResponseBase]: ...
@overload
def accept_websocket(
    view: Callable[Concatenate[Any, P], Coroutine[Any, Any, HttpResponseBase | None]], /
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, HttpResponseBase]]: ...
@overload
def accept_websocket(**options: Unpack[ViewOptions]) -> ViewDecorator: ...
def accept_websocket(view: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """
    Lets a view take WebSockets as well as plain HTTP requests.

    A handshake is validated before the view starts. The view then runs detached from the server, on
    its own thread, and talks through ``request.websocket``; for a plain request that is None and
    ``request.is_websocket()`` is False. When the view returns the connection is closed with 1000.

    Example::

        @accept_websocket
        def chat(request, room):
            if not request.is_websocket():
                return render(request, "chat.html")
            for message in request.websocket:
                request.websocket.send(message)

    Args:
        view: A function, or the result of ``as_view()``.
        accept: With False the view runs before the handshake is answered, and decides itself: by
            ``request.websocket.accept()`` or ``reject()``, or with a response or an exception, as
            for a page.
        groups: The groups that each connection joins before the view's first line (with
            ``accept=False`` at ``accept()``): templates of names that are filled in from the URL's
            arguments, such as ``"room-{room}"`` or ``"inbox-{user.pk}"``, or a function that is
            called with the view's arguments and returns names. A name that no group can have is
            answered with 404, a backend that cannot be reached with 503; a template with ``user``
            is left out for an anonymous one.
        resume: Join these groups numbered, from the positions that a client sends in its URL,
            ``?since=room-42:epoch-offset``, once a group: what it missed comes first. They need a
            history (``HISTORY`` of ``WEBSOCKET_GROUPS``).
        presence: Tell each connection which users join and leave those of the groups that have
            ``PRESENCE`` in ``WEBSOCKET_GROUPS``. A function in place of True is called with the
            view's arguments, and gives the ``info``: what others may see of the user.
        text_type: This and all arguments below override, for this view, the setting of the same
            name (``WEBSOCKET_TEXT_TYPE``).

    Raises:
        TypeError: An option that does not exist.
        ValueError: A value that an option cannot have.
    """
    return _decorate("accept_websocket", view, **options)


@overload
def require_websocket(
    view: Callable[Concatenate[Any, P], HttpResponseBase | None], /
) -> Callable[Concatenate[Any, P], HttpResponseBase]: ...
@overload
def require_websocket(
    view: Callable[Concatenate[Any, P], Coroutine[Any, Any, HttpResponseBase | None]], /
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, HttpResponseBase]]: ...
@overload
def require_websocket(**options: Unpack[ViewOptions]) -> ViewDecorator: ...
def require_websocket(view: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """
    Lets a view take WebSockets only: a plain HTTP request gets 400.

    Otherwise as :func:`accept_websocket`.

    Example::

        @require_websocket(subprotocols=["v1.clock"])
        def clock(request):
            while request.websocket.send_json({"time": time.time()}):
                time.sleep(1)
    """
    return _decorate("require_websocket", view, **options)


websocket = accept_websocket


def _decorate(
    mode: str,
    view: Callable[..., Any] | None = None,
    /,
    *,
    accept: bool = True,
    groups: Wanted | None = None,
    resume: bool = False,
    presence: bool | Callable[..., Any] = False,
    **options: Any,
) -> Any:
    for name in options:
        if name not in conf.OPTION_NAMES:
            raise TypeError(f"{mode}() got an unexpected keyword argument {name!r}")
    if not isinstance(accept, bool):
        raise ValueError(f"{mode}(accept=…) must be True or False, not {accept!r}")
    overrides = conf.overrides(mode, options)
    if resume and groups is None:
        raise TypeError(f"{mode}(resume=True) needs groups=[…], which clients come back to")
    if presence and groups is None:
        raise TypeError(f"{mode}(presence=…) needs groups=[…], whose users are told")
    view_groups = None
    if groups is not None:
        from dwebsocket.groups.view_groups import ViewGroups

        view_groups = ViewGroups(mode, groups, resume=resume, presence=presence)
    if view is None:
        return functools.partial(_wrap, mode, accept, view_groups, overrides)
    if not callable(view):
        raise TypeError(f"{mode}() decorates views, not {type(view).__name__}")
    return _wrap(mode, accept, view_groups, overrides, view)


def _signature() -> inspect.Signature:
    """Returns the signature of both decorators, with each option by its name."""
    _, *own, _ = inspect.signature(_decorate).parameters.values()
    kind, default = inspect.Parameter.KEYWORD_ONLY, _FromSettings()
    options = [inspect.Parameter(name, kind, default=default) for name in conf.OPTION_NAMES]
    return inspect.Signature([*own, *options])


accept_websocket.__dict__["__signature__"] = _signature()
require_websocket.__dict__["__signature__"] = _signature()


def _refuse_groups_above_guards(mode: str, view: Callable[..., Any]) -> None:
    """
    Raises where a client would get the messages of groups before it is refused.

    Raises:
        TypeError: A guard that is known as one stands between the decorator and the view's code.
    """
    is_behind_dispatch = class_of(view) is not None and view.__name__ != "dispatch"
    cls = None if is_behind_dispatch else class_based(view)
    guard = next((each for each in getattr(cls, "__mro__", ()) if _is_guarded_by(cls, each)), None)
    inner: Any = view
    while guard is None and inner is not None:
        guard = inner if getattr(inner, "__globals__", {}).get("__name__") in _GUARDS else None
        inner = getattr(inner, "__wrapped__", None)
    if guard is not None:
        name = guard.__name__ if isinstance(guard, type) else guard.__globals__["__name__"]
        advice = "decorate the method get" if cls is not None else f"put {mode} below it"
        raise TypeError(
            f"{mode}(groups=…) on {name_of(view)}: clients would be in the groups before "
            f"{name} refuses them: {advice}, or decide with accept=False"
        )


def _is_guarded_by(cls: Any, base: type) -> bool:
    """Whether ``base`` has a ``dispatch`` that may refuse requests for the class ``cls``."""
    dispatch = inspect.unwrap(vars(base)["dispatch"]) if "dispatch" in vars(base) else View.dispatch
    if dispatch is View.dispatch:
        return False
    # The `dispatch` of Django REST framework asks these.
    asked = getattr(cls, "permission_classes", ())
    is_rest = dispatch.__module__ == "rest_framework.views"
    return not is_rest or any(each.__name__ != "AllowAny" for each in asked)


def _wrap(
    mode: str,
    accept: bool,  # noqa: FBT001
    groups: ViewGroups | None,
    overrides: dict[str, Any],
    view: Callable[..., Any],
) -> Callable[..., Any]:
    # `preloading` imports the modules that answer requests before the first request.
    @functools.cache
    def detached() -> Detached:
        from dwebsocket.runners.view import Detached

        return Detached(view)

    def refusal(request: HttpRequest) -> HttpResponse | None:
        if mode == "require_websocket" and getattr(request, "websocket", None) is None:
            from dwebsocket.handshake.refusal import refuse

            return refuse(request, 400, "This address is for WebSockets only.")
        return None

    is_coroutine = is_async(view)
    if groups is not None and accept:
        _refuse_groups_above_guards(mode, view)

    @functools.wraps(view)
    def blocking(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        from dwebsocket.handshake import inline
        from dwebsocket.handshake.upgrade import UpgradeRequest, upgrade

        asked = UpgradeRequest(request, detached(), args, kwargs, overrides, groups)
        if (response := upgrade(asked, accept=accept)) is not None:
            return response
        if (response := refusal(asked.request)) is None:
            plain = async_to_sync(view) if is_coroutine else with_transactions(view, asked.request)
            response = plain(request, *args, **kwargs)
        return inline.with_response(asked.request, response)

    @functools.wraps(view)
    async def awaited(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        from dwebsocket.handshake import inline
        from dwebsocket.handshake.upgrade import UpgradeRequest, aupgrade

        asked = UpgradeRequest(request, detached(), args, kwargs, overrides, groups)
        if (response := await aupgrade(asked, accept=accept)) is not None:
            return response
        if (response := refusal(asked.request)) is None:
            response = await view(request, *args, **kwargs)
        return inline.with_response(asked.request, response)

    wrapper: Callable[..., Any] = blocking
    if is_coroutine:
        wrapper = awaited
        # Without the event loop in which Django under WSGI awaits a view.
        awaited.__dict__["blocking"] = blocking
    elif not accept:
        # The request waits for the view, which SQLite would not let write meanwhile.
        call_without_transactions(wrapper)
    # As the original's decorators set them: middleware of a project's own may read them.
    is_required = mode == "require_websocket" or getattr(view, "require_websocket", False)
    wrapper.__dict__.update(accept_websocket=True, require_websocket=is_required)
    # Tells our middleware that this decorator handles the requests.
    wrapper.__dict__["handles_websocket"] = True
    return wrapper


preloading.begin()

"""Attributes that Django's decorators and classes set on views, undocumented, 4.2 to 6.1."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction
from django.core.handlers.base import BaseHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

# Names of views that are kept for the next ones.
_NAMES = 256


def class_based(view: Callable[..., Any]) -> Any:
    """Returns the class behind what ``as_view()`` gives, or behind a decorated ``dispatch``."""
    # Django's name, and that of Django REST framework.
    return getattr(view, "view_class", None) or getattr(view, "cls", None) or class_of(view)


def class_of(view: Callable[..., Any]) -> type | None:
    """Returns the class-based view whose ``dispatch`` a ``method_decorator`` has decorated."""
    # `method_decorator` wraps the bound method into a partial.
    instance = getattr(getattr(view, "func", view), "__self__", None)
    return type(instance) if hasattr(instance, "dispatch") else None


def name_of(view: Callable[..., Any]) -> str:
    """Returns a view's name for its thread and for messages: module and qualified name."""
    named = getattr(view, "view_class", None) or class_of(view) or inspect.unwrap(view)
    named = getattr(named, "func", named)
    name = getattr(named, "__qualname__", type(named).__name__)
    # Each connection holds it, as the name of its thread or task.
    return _one_name(f"{getattr(named, '__module__', '')}.{name}")


@functools.lru_cache(_NAMES)
def _one_name(name: str) -> str:
    return name


def is_async(view: Callable[..., Any]) -> bool:
    """Whether calling ``view`` returns a coroutine, also when it is a method of an async class."""
    if iscoroutinefunction(view):
        return True
    return bool(getattr(class_of(view), "view_is_async", False))


class _EachDatabase(set[str]):
    """Those in whose transactions a view is not called: each. The project has named some."""

    def __contains__(self, alias: object) -> bool:
        return True


def call_without_transactions(view: Any) -> None:
    """
    Has Django call a view in no transaction, whatever ``ATOMIC_REQUESTS`` says.

    By the attribute of ``transaction.non_atomic_requests``, in every version so far: where another
    one counts, the view is called in a transaction.
    """
    view._non_atomic_requests = _EachDatabase(getattr(view, "_non_atomic_requests", ()))


def with_transactions(view: Callable[..., Any], request: HttpRequest) -> Callable[..., Any]:
    """Returns a view within those that :func:`call_without_transactions` has taken from it."""
    match = getattr(request, "resolver_match", None)
    named = getattr(getattr(match, "func", None), "_non_atomic_requests", None)
    if not isinstance(named, _EachDatabase):
        return view
    page: Any = functools.partial(view)
    page._non_atomic_requests = {*named}
    made: Callable[..., Any] = BaseHandler().make_view_atomic(page)
    return made

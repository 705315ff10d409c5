"""Guards of handlers, which are class-based views: mixins, `dispatch` and `setup`."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
from django.contrib.auth.mixins import (
    LoginRequiredMixin,
)
from django.http import HttpResponse, HttpResponseForbidden
from django.views.decorators.csrf import csrf_exempt
from echoing import talks
from guarding import (
    HANDLERS,
    IN_PROCESS,
    SIGN_IN,
    AsksUser,
    AsyncHandler,
    Connecting,
    Handler,
    NeedsPermission,
    OwnDispatch,
    on_class,
    outcome,
    plain,
    reached,
)
from rest_framework.permissions import IsAuthenticated
from visit import Serve, handshake

from dwebsocket import WebSocketHandler, group


class AsyncDispatch:
    """A coroutine function."""

    async def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        if not (await request.auser()).is_authenticated:
            return HttpResponseForbidden("not you")
        return await super().dispatch(request, *args, **kwargs)  # type: ignore[misc]


class AfterDispatch:
    """One that replaces the answer of the others."""

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
        return response if request.user.is_authenticated else HttpResponseForbidden("not you")


class TestHandlers:
    """A handler is a class-based view."""

    @pytest.mark.parametrize("cls", HANDLERS)
    @pytest.mark.parametrize("guard", [AsyncDispatch, AfterDispatch])
    def test_other_forms_of_dispatch(self, visit: Serve, cls: Any, guard: Any) -> None:
        """Async ones in every class; those that look at the response where it is one."""
        if guard is AfterDispatch and cls not in (Handler, Connecting):
            pytest.skip("in an async class the answer is a coroutine, as in Django")
        view = on_class(guard, cls)
        assert outcome(visit, view, [SIGN_IN], handshake()) == "403"
        assert "receive" not in reached
        talks(visit(view, middleware=[SIGN_IN], environ=handshake("/?user=1")))

    @pytest.mark.parametrize("cls", HANDLERS)
    def test_one_object_a_connection(self, visit: Serve, cls: Any) -> None:
        """What `setup` and `dispatch` put into it is there in the methods."""

        class Prepares(cls):  # type: ignore[misc]
            def setup(self, request: Any, *args: Any, **kwargs: Any) -> None:
                super().setup(request, *args, **kwargs)
                assert self.websocket is None
                self.kwargs["number"] += 1

            def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
                self.found = f"{self.kwargs['number']} of {request is self.request}"
                return super().dispatch(request, *args, **kwargs)

            def receive(self, message: Any) -> None:
                self.websocket.send(f"{self.found} {self.kwargs}")

        made = visit(Prepares.as_view(), environ=handshake("/7/")).serve()
        made.client.send("go")
        assert made.client.receive() == "8 of True {'number': 8}"
        made.client.close()

    def test_groups_are_those_that_the_guards_have_seen(self, visit: Serve, override: Any) -> None:
        """By the object's own arguments."""
        override(WEBSOCKET_GROUPS=IN_PROCESS)

        class Renames(Handler):
            groups = ("room-{number}",)

            def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
                self.kwargs = {"number": 1}
                return super().dispatch(request, *args, **kwargs)

        made = visit(Renames.as_view(), environ=handshake("/7/")).serve()
        assert (group("room-1").count(), group("room-7").count()) == (1, 0)
        made.client.close()
        assert made.client.closing()[0] == 1000

    def test_methods(self, visit: Serve) -> None:
        """All of HTTP, as Django's View has them."""

        class Posts(Handler):
            def post(self, request: Any) -> HttpResponse:
                return HttpResponse("posted")

            def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Any:
                return HttpResponse("never", status=405)

        view = Posts.as_view()
        assert visit(view, environ=plain("POST")).response.content == b"posted"
        head = {**plain(), "REQUEST_METHOD": "HEAD"}
        assert visit(view, environ=head).response.status_code == 200
        allowed = visit(view, environ={**plain(), "REQUEST_METHOD": "OPTIONS"}).response["Allow"]
        assert allowed == "GET, POST, HEAD, OPTIONS"
        put = {**plain(), "REQUEST_METHOD": "PUT"}
        assert visit(view, environ=put).response.content == b"never"

    @pytest.mark.parametrize("cls", HANDLERS)
    def test_class_without_get(self, visit: Serve, cls: Any) -> None:
        """`http_method_names` refuses handshakes, too."""
        view = cls.as_view(http_method_names=["post", "options"])
        assert outcome(visit, view, [], handshake()) in ("400", "405")
        assert outcome(visit, view, [], plain()) in ("400", "405")
        assert reached == []

    def test_attributes_of_decorators(self) -> None:
        """Are the view's, as Django's middleware reads them there."""
        view: Any = on_class(csrf_exempt, Handler)
        assert view.csrf_exempt is True
        assert view.view_initkwargs == {}
        assert Handler.as_view(every=5).view_initkwargs == {"every": 5}  # type: ignore[attr-defined]

    @pytest.mark.parametrize("has_pages", [True, False])
    def test_attributes_of_our_decorators(self, has_pages: bool) -> None:
        """For middleware of a project's own, as on decorated functions."""
        pages = {"get": lambda self, request: None} if has_pages else {}
        view: Any = type("Some", (WebSocketHandler,), pages).as_view()
        assert (view.accept_websocket, view.require_websocket) == (True, not has_pages)

    def test_object_of_a_handler_is_in_no_cycle(self, visit: Serve) -> None:
        """A refused one is freed at once."""
        made: list[Any] = []

        class Notes(OwnDispatch, Handler):
            def setup(self, request: Any, *args: Any, **kwargs: Any) -> None:
                super().setup(request, *args, **kwargs)
                made.append(weakref.ref(self))

        assert outcome(visit, Notes.as_view(), [SIGN_IN], handshake()) == "403"
        assert [each() for each in made] == [None]


class TestRefusedAtLoad:
    """Guards that would guard nothing are errors when the URL conf is read."""

    def test_mixin_behind_the_handler(self) -> None:
        """Its dispatch would never be called."""
        cls = type("Secret", (Handler, LoginRequiredMixin), {})
        with pytest.raises(TypeError, match="name LoginRequiredMixin before WebSocketHandler"):
            cls.as_view()  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("mixin", "name"), [(AsksUser, "test_func"), (NeedsPermission, "has_permission")]
    )
    def test_mixin_that_is_given_a_coroutine(self, mixin: Any, name: str) -> None:
        """A coroutine would count as a yes."""

        async def never(self: Any) -> bool:
            return False

        cls = type("Secret", (mixin, AsyncHandler), {name: never})
        with pytest.raises(TypeError, match=rf"^Secret.{name} is a coroutine function"):
            cls.as_view()  # type: ignore[attr-defined]

    def test_mixin_whose_coroutine_is_awaited(self, visit: Serve) -> None:
        """By a dispatch of the project's own."""

        class Awaits(AsksUser):
            async def test_func(self) -> bool:  # type: ignore[override]
                return False

            async def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
                if await self.test_func():
                    return await super().dispatch(request, *args, **kwargs)
                return self.handle_no_permission()

        view = on_class(Awaits, AsyncHandler)
        assert outcome(visit, view, [SIGN_IN], handshake()) == "302"

    @pytest.mark.parametrize(
        "name", ["authentication_classes", "permission_classes", "throttle_classes"]
    )
    def test_attributes_of_rest_framework(self, name: str) -> None:
        """Only its own views read them; a handler that decides may, too."""
        cls = type("Secret", (Handler,), {name: [IsAuthenticated]})
        with pytest.raises(TypeError, match=rf"^Secret.{name} has no effect"):
            cls.as_view()  # type: ignore[attr-defined]
        type("Secret", (Connecting,), {name: [IsAuthenticated]}).as_view()  # type: ignore[attr-defined]

"""`{% load dwebsocket %}`: addresses of views, and the positions from which a page joins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.template import Context, Engine, RequestContext
from django.test import RequestFactory
from django.urls import NoReverseMatch, ResolverMatch, include, path

from dwebsocket import UsageError, group

Override = Callable[..., None]
ENGINE = Engine(libraries={"dwebsocket": "dwebsocket.templatetags.dwebsocket"})


def view(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    """Be nothing but an address."""
    return HttpResponse()


APP = ([path("<slug:room>/", view, name="room")], "talk")


@pytest.fixture(autouse=True)
def _site(override: Override) -> None:
    override(
        ROOT_URLCONF=(
            path("ws/<str:room>/", view, name="chat"),
            path("one/", include(APP, namespace="one")),
            path("two/", include(APP, namespace="two")),
        ),
        WEBSOCKET_GROUPS={
            "default": {
                "BACKEND": "dwebsocket.groups.process",
                "HISTORY": {"room-*": {"size": 10, "seconds": 300}},
            }
        },
    )


def render(source: str, context: Context | None = None, **values: Any) -> str:
    """Render a template that has loaded the library."""
    template = ENGINE.from_string("{% load dwebsocket %}" + source)
    return str(template.render(context or Context(values)))


def page(address: str = "/", *, secure: bool = False, **headers: str) -> HttpRequest:
    """Make the request of a page."""
    return RequestFactory(headers=headers).get(address, secure=secure)


class TestWebsocketURL:
    """The tag."""

    @pytest.mark.parametrize(
        ("arguments", "address"),
        [
            ("'chat' room=42", "/ws/42/"),
            ("'chat' 42", "/ws/42/"),
            ("name room=room", "/ws/kitchen%20table/"),
            ("'one:room' room='a'", "/one/a/"),
            ("'two:room' room='a'", "/two/a/"),
        ],
    )
    def test_reverses_names_as_url_does(self, arguments: str, address: str) -> None:
        """With namespaces, and arguments by place or by name; without a request it is a path."""
        source = f"{{% websocket_url {arguments} %}}"
        assert render(source, name="chat", room="kitchen table") == address

    def test_unknown_view(self) -> None:
        """Django's own exception."""
        with pytest.raises(NoReverseMatch, match="nowhere"):
            render("{% websocket_url 'nowhere' %}")

    @pytest.mark.parametrize(
        ("request_", "address"),
        [
            (page(), "ws://testserver/ws/1/"),
            (page(secure=True), "wss://testserver/ws/1/"),
            (page(host="a.example.com:8000"), "ws://a.example.com:8000/ws/1/"),
            (page(host="[::1]"), "ws://[::1]/ws/1/"),
            (
                page(host="a.example.com", **{"x-forwarded-proto": "https"}),
                "wss://a.example.com/ws/1/",
            ),
            (page(**{"x-forwarded-host": "b.example.com"}), "ws://b.example.com/ws/1/"),
        ],
    )
    def test_is_whole_with_a_request(
        self, override: Override, request_: HttpRequest, address: str
    ) -> None:
        """As the page came, also through a proxy that Django's settings know."""
        override(
            SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"), USE_X_FORWARDED_HOST=True
        )
        source = "{% websocket_url 'chat' room=1 %}"
        assert render(source, request=request_) == address
        # Without the context processor `request`.
        assert render(source, RequestContext(request_)) == address

    def test_proxies_headers_are_nothing_unless_settings_name_them(self) -> None:
        """Else any client could choose."""
        request = page(**{"x-forwarded-proto": "https", "x-forwarded-host": "evil.example"})
        assert render("{% websocket_url 'chat' room=1 %}", request=request).startswith(
            "ws://testserver/"
        )

    def test_stays_in_the_pages_instance_of_an_application(self) -> None:
        """By the page's namespace, or by `request.current_app`."""
        request = page()
        request.resolver_match = ResolverMatch(view, (), {}, app_names=["talk"], namespaces=["two"])
        source = "{% websocket_url 'talk:room' room='a' %}"
        assert render(source, request=request) == "ws://testserver/two/a/"
        request.current_app = "one"  # type: ignore[attr-defined]
        assert render(source, request=request) == "ws://testserver/one/a/"

    def test_as_variable(self) -> None:
        """Nothing is written, and a variable has it."""
        source = "{% websocket_url 'chat' room=1 as address %}[{{ address }}]"
        assert render(source) == "[/ws/1/]"

    @pytest.mark.parametrize("autoescape", ["on", "off"])
    def test_is_the_same_in_attributes_and_scripts(self, autoescape: str) -> None:
        """Nothing in it is escaped, so nothing is escaped twice or by mistake."""
        room = "Tom & 'Jerry' <b>\"?#"
        source = f"{{% autoescape {autoescape} %}}{{% websocket_url 'chat' room=room %}}"
        source += "{% websocket_url 'chat' room=room as it %} {{ it }}{% endautoescape %}"
        address = "/ws/Tom%20%26%20%27Jerry%27%20%3Cb%3E%22%3F%23/"
        assert render(source, room=room) == f"{address} {address}"


class TestPosition:
    """The filter."""

    @pytest.mark.parametrize("value", ["room-1", group("room-1")])
    def test_of_a_group(self, value: Any) -> None:
        """Its newest message, by its name, too."""
        group("room-1").send("one")
        (entry,) = group("room-1").history()
        assert render("{{ group|position }}", group=value) == entry.position

    def test_of_an_empty_group(self) -> None:
        """Ends in 0."""
        assert render("{{ group|position }}", group=group("room-1")).endswith("-0")

    @pytest.mark.parametrize("before", [0, 1, 12])
    def test_of_a_history(self, before: int) -> None:
        """Where it ends, whatever is said until the template is rendered; also of an empty one."""
        talk = group("room-1")
        for number in range(before):
            talk.send(str(number))
        position, said = talk.position(), talk.history()
        talk.send("later")
        assert render("{{ said|position }}", said=said) == position
        assert [entry.message for entry in talk.history(since=position)] == ["later"]

    @pytest.mark.parametrize("value", ["news", group("news")])
    def test_group_without_a_history(self, value: Any) -> None:
        """The setting is named."""
        with pytest.raises(UsageError, match="'news' has none: name it in HISTORY of WEBSOCKET_"):
            render("{{ group|position }}", group=value)

    @pytest.mark.parametrize(
        ("values", "error", "text"),
        [
            ({}, ValueError, "must have 1 to 200 characters"),
            ({"group": None}, TypeError, "must be a str, not NoneType"),
            ({"group": 42}, TypeError, "must be a str, not int"),
            ({"group": []}, TypeError, "must be a str, not list"),
            ({"group": "dwebsocket.user:1"}, ValueError, "reserved"),
        ],
    )
    def test_no_group(self, values: Any, error: type[Exception], text: str) -> None:
        """A misspelt variable is no position."""
        with pytest.raises(error, match=text):
            render("{{ group|position }}", **values)

"""The pages that may connect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from django.test import RequestFactory

from dwebsocket import conf
from dwebsocket.handshake import origin
from dwebsocket.request import BY_FALLBACK

Override = Callable[..., None]


def request(host: str, page: str | None, *, secure: bool = False) -> HttpRequest:
    """Make a handshake to `host` from a page of the origin `page`."""
    headers: dict[str, Any] = {"HTTP_HOST": host}
    if page is not None:
        headers["HTTP_ORIGIN"] = page
    return RequestFactory().get("/", secure=secure, **headers)


@pytest.mark.parametrize(
    ("host", "page"),
    [
        ("testserver", "http://testserver"),
        ("testserver", "http://testserver:80"),
        ("testserver:80", "http://testserver"),
        ("testserver:8000", "http://testserver:8000"),
        ("testserver", "HTTP://TestServer"),
        ("TESTSERVER", "http://testserver"),
        ("testserver", "  http://testserver "),
        ("a.example.com", "http://a.example.com"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("testserver", None),
    ],
)
def test_own_site_over_http(host: str, page: str | None) -> None:
    """The site itself, and clients that are no browsers."""
    assert origin.objection(request(host, page), ()) is None


@pytest.mark.parametrize(
    ("host", "page"),
    [
        ("testserver", "https://testserver"),
        ("testserver", "https://testserver:443"),
        ("testserver:443", "https://testserver"),
        ("testserver:8443", "https://testserver:8443"),
    ],
)
def test_own_site_over_https(host: str, page: str) -> None:
    """The default port of https is another."""
    assert origin.objection(request(host, page, secure=True), ()) is None


@pytest.mark.parametrize(
    ("secure", "page"),
    [
        (False, "http://evil.example"),
        (False, "http://testserver:8000"),
        (False, "http://testserver.evil.example"),
        (False, "http://eviltestserver"),
        (False, "http://sub.testserver"),
        (False, "https://testserver"),
        (True, "http://testserver"),
        (True, "https://testserver:80"),
        (False, "ftp://testserver"),
        (False, "ws://testserver"),
        (False, "file://"),
        (False, "null"),
        (False, ""),
        (False, "testserver"),
        (False, "*"),
        (False, "http://"),
        (False, "http://testserver/"),
        (False, "http://testserver/page"),
        (False, "http://testserver?q"),
        (False, "http://testserver#f"),
        (False, "http://testserver:port"),
        (False, "http://testserver:99999"),
        (False, "http://[::1"),
        (False, "http://testserver http://evil.example"),
        (False, "http://testserver, http://evil.example"),
        (False, "chrome-extension://abcdef"),
    ],
)
def test_foreign_and_malformed(secure: bool, page: str) -> None:
    """Everything else is refused, and the reason shows both sides."""
    reason = origin.objection(request("testserver", page, secure=secure), ())
    assert reason is not None
    own = "https://testserver" if secure else "http://testserver"
    assert reason.startswith(f"Origin {page!r} is not this site ({own}): ")


def test_hint_for_foreign_pages() -> None:
    """The reason names the setting that allows them."""
    reason = origin.objection(request("testserver", "https://friend.example"), ())
    assert reason is not None
    assert reason.endswith(": add it to WEBSOCKET_ALLOWED_ORIGINS if it may connect")


@pytest.mark.parametrize(
    ("host", "page"),
    [("testserver", "https://testserver"), ("testserver:8000", "https://testserver:8000")],
)
def test_hint_behind_a_proxy_that_ends_tls(host: str, page: str) -> None:
    """Django thinks that the site is http: says how to tell it."""
    reason = origin.objection(request(host, page), ())
    assert reason is not None
    assert reason.endswith("if a proxy ends TLS in front of Django, set SECURE_PROXY_SSL_HEADER")


@pytest.mark.parametrize(
    ("host", "page", "forwarded"),
    [
        ("localhost:8000", "https://www.example.com", None),
        ("testserver", "https://elsewhere.example", "elsewhere.example"),
    ],
)
def test_hint_behind_a_proxy_that_loses_host(host: str, page: str, forwarded: str | None) -> None:
    """The page has a name of the site, or the proxy says so: the setting would be no cure."""
    handshake = request(host, page)
    if forwarded is not None:
        handshake.META["HTTP_X_FORWARDED_HOST"] = forwarded
    reason = origin.objection(handshake, ())
    assert reason is not None
    assert "proxy_set_header Host $http_host" in reason


@pytest.mark.parametrize(
    "entry", ["http://friend.example", "https://friend.example:8443", "wss://friend.example"]
)
def test_hint_about_an_entry_that_is_another_origin(entry: str) -> None:
    """The scheme and the port belong to it."""
    reason = origin.objection(request("testserver", "https://friend.example"), (entry,))
    assert reason is not None
    assert reason.endswith(f": if it may connect, write it as it is here: allowed is {entry!r}")


def test_pages_in_files() -> None:
    """Some browsers and apps send an Origin without a host for them."""
    assert origin.objection(request("testserver", "file://"), ("file://",)) is None
    for other in ("null", "file:///", "file://a", "https://testserver.example"):
        assert origin.objection(request("testserver", other), ("file://",)) is not None
    assert origin.objection(request("testserver", "file://"), ("null", "https://a.b")) is not None


def test_behind_a_proxy_that_is_known(override: Override) -> None:
    """With the setting of the hint the same request may connect."""
    override(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
    handshake = request("testserver", "https://testserver")
    handshake.META["HTTP_X_FORWARDED_PROTO"] = "https"
    assert origin.objection(handshake, ()) is None


def test_forwarded_host_counts_only_if_set(override: Override) -> None:
    """As in Django's `get_host`."""
    handshake = request("testserver", "http://a.example.com")
    handshake.META["HTTP_X_FORWARDED_HOST"] = "a.example.com"
    assert origin.objection(handshake, ()) is not None
    override(USE_X_FORWARDED_HOST=True)
    assert origin.objection(handshake, ()) is None


def remembered() -> dict[str, str]:
    """Give the hosts that need not be looked at again, by their headers."""
    _, hosts = conf.present()[1][origin._host_of]
    return dict(hosts)


class TestHost:
    """Django's own look at the Host costs a lot, so its result is remembered."""

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_is_looked_at_once(
        self, override: Override, monkeypatch: pytest.MonkeyPatch, kind: Callable[..., Any]
    ) -> None:
        """For each of the site's hosts, whichever client asks."""
        override(ALLOWED_HOSTS=kind([".example.com"]))
        asked: list[str] = []
        look = HttpRequest.get_host

        def counted(request: HttpRequest) -> str:
            asked.append(request.META["HTTP_HOST"])
            return look(request)

        monkeypatch.setattr(HttpRequest, "get_host", counted)
        for host in ("once.example.com", "once.example.com", "twice.example.com"):
            assert origin.objection(request(host, f"http://{host}"), ()) is None
        assert asked == ["once.example.com", "twice.example.com"]

    @pytest.mark.parametrize("assigned", [True, False], ids=["assigned", "overridden"])
    def test_hosts_that_are_taken_back(
        self, override: Override, monkeypatch: pytest.MonkeyPatch, *, assigned: bool
    ) -> None:
        """From then on they are not the site's any more."""
        assert origin.objection(request("a.example.com", None), ()) is None
        if assigned:
            monkeypatch.setattr(settings, "ALLOWED_HOSTS", ["testserver"])
        else:
            override(ALLOWED_HOSTS=["testserver"])
        with pytest.raises(DisallowedHost):
            origin.objection(request("a.example.com", None), ())

    def test_others_are_refused_each_time(self) -> None:
        """Nothing is remembered of them."""
        for _ in range(2):
            with pytest.raises(DisallowedHost):
                origin.objection(request("elsewhere.example", None), ())

    def test_no_more_than_so_many_are_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a pattern in `ALLOWED_HOSTS`, clients choose the names that are remembered."""
        assert origin.objection(request("first.example.com", None), ()) is None
        monkeypatch.setattr(origin, "_MOST_KNOWN", len(remembered()) + 2)
        for number in range(5):
            assert origin.objection(request(f"host-{number}.example.com", None), ()) is None
        assert len(remembered()) == origin._MOST_KNOWN

    def test_long_names_are_not_remembered(self) -> None:
        """Nor other headers of a client beside the Host."""
        assert origin.objection(request("short.example.com", None), ()) is None
        before = remembered()
        for number in range(3):
            handshake = request("short.example.com", None)
            handshake.META["HTTP_X_FORWARDED_HOST"] = f"{number}.example.com"
            assert origin.objection(handshake, ()) is None
            long = f"{number}.{'long.' * 100}example.com"
            assert origin.objection(request(long, None), ()) is None
        assert remembered() == before

    def test_requests_with_a_look_of_their_own(self) -> None:
        """They are asked."""

        class Own(HttpRequest):
            def get_host(self) -> str:
                return "own.example"

        handshake = Own()
        handshake.META = {"HTTP_HOST": "testserver", "HTTP_ORIGIN": "http://own.example"}
        assert origin.objection(handshake, ()) is None


@pytest.mark.parametrize(
    ("entry", "page", "may"),
    [
        ("https://friend.example", "https://friend.example", True),
        ("https://Friend.Example", "https://friend.example", True),
        ("https://friend.example", "https://friend.example:443", True),
        ("https://friend.example:443", "https://friend.example", True),
        ("https://friend.example", "http://friend.example", False),
        ("https://friend.example", "https://friend.example:8443", False),
        ("https://friend.example", "https://a.friend.example", False),
        ("https://friend.example", "https://friend.example.evil.example", False),
        ("https://*.friend.example", "https://a.friend.example", True),
        ("https://*.friend.example", "https://a.b.friend.example", True),
        ("https://*.friend.example", "https://friend.example", True),
        ("https://*.friend.example", "https://evilfriend.example", False),
        ("https://*.friend.example", "http://a.friend.example", False),
        ("https://*.friend.example", "https://a.friend.example:8443", False),
        ("https://*.friend.example:8443", "https://a.friend.example:8443", True),
        ("https://*.friend.example", "null", False),
        ("https://*.friend.example", "nonsense", False),
        ("https://*.", "https://friend.example", False),
        ("chrome-extension://abcdef", "chrome-extension://abcdef", True),
        ("chrome-extension://abcdef", "chrome-extension://abcdeg", False),
        ("null", "null", True),
        ("null", "https://friend.example", False),
        ("*", "https://friend.example", True),
        ("*", "null", True),
        ("*", "nonsense", True),
    ],
)
def test_allowed_origins(entry: str, page: str, may: bool) -> None:
    """Scheme, host and port all count; `*.` stands for subdomains as in Django's own setting."""
    reason = origin.objection(request("testserver", page), ("https://other.example", entry))
    assert (reason is None) is may


@pytest.mark.parametrize(
    ("page", "may"),
    [
        ("https://trusted.example", True),
        ("https://a.trusted.example", False),
        ("https://a.wild.example", True),
        ("http://trusted.example", False),
    ],
)
def test_csrf_trusted_origins(override: Override, page: str, may: bool) -> None:
    """Pages that may post forms may open WebSockets."""
    override(CSRF_TRUSTED_ORIGINS=["https://Trusted.example", "https://*.wild.example"])
    assert (origin.objection(request("testserver", page), ()) is None) is may


@pytest.mark.parametrize("page", [None, "http://elsewhere.example", "http://evil.example"])
def test_foreign_host(page: str | None) -> None:
    """`ALLOWED_HOSTS` decides first, or the Origin would be compared with anything."""
    with pytest.raises(DisallowedHost):
        origin.objection(request("elsewhere.example", page), ("*",))


@pytest.mark.parametrize("page", [None, "http://testserver"])
def test_origin_may_be_required(page: str | None) -> None:
    """Then a client without an Origin is refused, and no other."""
    asked = request("testserver", page)
    words = "there is no Origin, and WEBSOCKET_REQUIRE_ORIGIN is on"
    assert origin.objection(asked, (), required=True) == (words if page is None else None)


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"HTTP_USER_AGENT": "Mozilla/5.0"}, "null"),
        ({"HTTP_USER_AGENT": "Mozilla/5.0", "HTTP_REFERER": ""}, "null"),
        ({"HTTP_USER_AGENT": "Mozilla/5.0", "HTTP_SEC_FETCH_SITE": "cross-site"}, "null"),
        ({"HTTP_USER_AGENT": "Mozilla/5.0", "HTTP_REFERER": "http://a.b/?c"}, "http://a.b"),
        ({"HTTP_USER_AGENT": "Mozilla/5.0", "HTTP_REFERER": "http://testserver/page"}, None),
        ({"HTTP_USER_AGENT": "Mozilla/5.0", "HTTP_SEC_FETCH_SITE": "same-origin"}, None),
        ({"HTTP_USER_AGENT": "NetSurf/3.11", "HTTP_ACCEPT": "text/html"}, "null"),
        ({"HTTP_USER_AGENT": "python/3.14 websockets/15"}, None),
    ],
    ids=str,
)
def test_fallback_without_an_origin(headers: dict[str, str], named: str | None) -> None:
    """A browser that tells nothing of its page may hold a page of any site, which hides itself."""
    asked = request("testserver", None)
    asked.META.update(headers)
    assert origin.objection(asked, ()) is None
    asked.__dict__[BY_FALLBACK] = True
    reason = origin.objection(asked, ())
    assert (reason and reason.split("'")[1]) == named


def test_hint_for_pages_that_hide_themselves() -> None:
    """To allow `null` would let in all of them."""
    asked = request("testserver", None)
    asked.META["HTTP_USER_AGENT"] = "Mozilla/5.0"
    asked.__dict__[BY_FALLBACK] = True
    reason = origin.objection(asked, ())
    assert reason is not None
    assert reason.endswith(": a page of this site has to send a Referer where there is no HTTPS")


def test_forwarded_scheme_counts_only_if_set(override: Override) -> None:
    """A header that no known proxy has set may be made up by the client."""
    asked = request("testserver", "https://testserver")
    asked.META["HTTP_X_FORWARDED_PROTO"] = "https"
    assert origin.objection(asked, ()) is not None
    override(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
    assert origin.objection(asked, ()) is None

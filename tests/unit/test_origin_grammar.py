"""An Origin keeps to the grammar of RFC 6454 section 6.2, or it is foreign."""

from __future__ import annotations

import re
import string

import pytest
from django.test import RequestFactory
from hypothesis import given, settings
from hypothesis import strategies as st

from dwebsocket.handshake import origin

ALLOWED = ("https://friend.example", "https://*.wide.example", "http://[2001:db8::1]:8000")
# Every host that may connect, in any of its spellings, and its subdomains.
MAY = re.compile(
    r"https://friend\.example(:443)?|https://([a-z0-9_.-]*\.)?wide\.example(:443)?|"
    r"http://\[2001:db8::1\]:8000|http://testserver(:80)?"
)


def may_connect(page: str, allowed: tuple[str, ...] = ALLOWED) -> bool:
    """Whether a page of this origin may open a WebSocket to http://testserver."""
    request = RequestFactory().get("/", HTTP_HOST="testserver", HTTP_ORIGIN=page)
    return origin.objection(request, allowed) is None


@pytest.mark.parametrize(
    "page",
    [
        *("http://evil.example\\@testserver", "http://testserver\\@evil.example"),
        *("http://testserver\\", "http:\\\\testserver", "http:/\\testserver", "http:testserver"),
        *("http://user@testserver", "http://user:word@testserver", "http://@testserver"),
        *("http://testserver/", "http://testserver//", "http://testserver/?", "http:///testserver"),
        *("http://testserver?", "http://testserver#", "//testserver", "http//testserver"),
        *("http://testserver:", "http://testserver:080", "http://testserver:+80"),
        *("http://testserver:0", "http://testserver:65616", "http://testserver:80:80"),
        *("http://testserver:\u0668\u0660", "http://testserver:\xb2", "http://testserver:8_0"),
        *("http://test\tserver", "http://test\nserver", "h\tttp://testserver", "http://\rtestserver"),
        *("http://testserver\0", "\0http://testserver", "\x1fhttp://testserver"),
        *("\x0chttp://testserver", "http://testserver ,"),
        *("http://testserver\xa0", "\x85http://testserver", "http://test server"),
        *("http://\uff54estserver", "http://te\u017ftserver", "http://testserver%20"),
        *("http://%74estserver", "http://testserver*"),
        *("https://\u212aind.friend.example", "https://fr\u0131end.example"),
        *("https://friend.example.", "https://friend.example@evil.example", "https://.friend.example"),
        *("https://evil.example/.wide.example", "https://evil.example\\.wide.example"),
        *("https://evil.example#.wide.example", "https://evil.example?.wide.example"),
        *("https://evil.example:443.wide.example", "https://evil@a.wide.example"),
        *("http://[2001:db8::1].evil.example:8000", "http://[2001:db8::1]8000"),
        *("http://[2001:db8::1]@evil.example:8000", "http://x[2001:db8::1]:8000"),
        *("http://[2001:db8::1%25eth0]:8000", "http://2001:db8::1:8000", "http://[2001:db8::1:8000"),
    ],
)  # fmt: skip
def test_no_browser_sends_it(page: str) -> None:
    """Whatever a more lenient parser makes of it."""
    assert not may_connect(page)


@pytest.mark.parametrize(
    "page",
    [
        *("http://[::1].evil.example:8000", "http://[::1]evil.example:8000", "http://[::1]:8000:1"),
        *("http://[::1]@evil.example:8000", "http://evil.example\\@[::1]:8000", "http://[::1]:"),
        *("http://[:::1]:8000", "http://[]:8000", "http://[...]:8000", "http://[1]:8000"),
    ],
)
def test_site_that_is_an_ipv6_address(page: str) -> None:
    """Brackets hold an IPv6 address, and only a port may follow them."""
    request = RequestFactory().get("/", HTTP_HOST="[::1]:8000", HTTP_ORIGIN=page)
    assert origin.objection(request, ()) is not None


@pytest.mark.parametrize(
    "page",
    [
        *("http://testserver", "http://testserver:80", "https://friend.example:443"),
        *("https://wide.example", "https://a.wide.example", "https://a_b.c-d.wide.example"),
        *("http://[2001:db8::1]:8000", " http://testserver\t"),
    ],
)
def test_browsers_send_it(page: str) -> None:
    """Also with the port of the scheme, and with white space as HTTP allows it around a value."""
    assert may_connect(page)


# Texts close to an allowed origin: pieces of it, and texts that confuse parsers, in any order.
PIECES = [
    *("http", "https", "://", ":", "/", "//", "\\", "@", "#", "?", "%", " ", "\t", "\n", "\0"),
    *("friend.example", "wide.example", "testserver", "evil.example", ".", "[", "]", "*", ","),
    *("[2001:db8::1]", "::1", "443", "80", "8000", "0", "+", "-", "_", "\xa0", "\u212a", "\u0131"),
]


@settings(max_examples=600, deadline=None)
@given(
    st.one_of(
        st.text(max_size=40),
        st.lists(st.sampled_from(PIECES), max_size=9).map("".join),
        st.tuples(
            st.sampled_from(["http://", "https://"]),
            st.text(string.printable, max_size=12),
            st.sampled_from(["testserver", "friend.example", "a.wide.example"]),
            st.text(string.printable, max_size=8),
        ).map("".join),
    )
)
def test_whatever_may_connect_is_an_origin(page: str) -> None:
    """Of any text only the allowed origins, letter by letter, may connect; nothing raises."""
    if may_connect(page):
        assert MAY.fullmatch(page.strip(" \t").lower())
    if page.isascii():
        assert may_connect(page) == bool(MAY.fullmatch(page.strip(" \t").lower()))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_refusals_are_one_line(page: str) -> None:
    """The reason shows the Origin, and stands in the log."""
    request = RequestFactory().get("/", HTTP_HOST="testserver", HTTP_ORIGIN=page)
    assert (origin.objection(request, ()) or "").isprintable()

"""
The abilities that servers lack, with the reason: expected failures of the list of behaviours.

An ASGI server validates the handshake before its application; granian also speaks the protocol. No
application can change these failures. An expected failure that passes is an error. A test that
fails at times only is not run, and is documented in docs/servers/.
"""

from __future__ import annotations

import re
from typing import Literal

# Whether a test fails each time; if not, or if it would only wait until its time is up: not run.
_Always = Literal[True] | None

# Kind, test, reason.
_TABLE: list[tuple[str, str, str, _Always]] = [
    (
        "werkzeug-one-thread",
        "test_foreign_page_is_refused",
        "answers by HTTP/1.0 what it refuses, which the client of this test does not read",
        True,
    ),
    (
        "granian",
        r"test_malformed_handshake\[(POST|OPTIONS)",
        "tells the application of a GET",
        True,
    ),
    (
        "granian",
        r"test_malformed_handshake\[((empty|short) key|key |.*origin|.*host|extensions|HTTP/1.0)",
        "refuses with the status that is asked for, but with the headers of a 101 beside it",
        True,
    ),
    (
        "granian",
        "test_headers_and_cookies_of_middleware|test_never_cache_over_ours|test_accepts",
        "sends no headers of the application with the 101",
        True,
    ),
    (
        "granian",
        r"test_by_the_client\[",
        "does not tell the application the reason of a close",
        True,
    ),
    (
        "granian",
        "test_by_the_client_s_fin",
        "tells the application 1005 for a client that vanished",
        True,
    ),
    (
        "uvicorn-tls|hypercorn-http2",
        "test_early_",
        "drops what comes before it has accepted",
        None,
    ),
    (
        "hypercorn-tls",
        r"test_early_frames_are_kept_in_order\[hundred",
        "runs two messages together of those that come before it has accepted",
        False,
    ),
    (
        "hypercorn-(tls|http2)",
        r"test_by_the_client\[",
        "tells the application 1006 whatever the client has closed with",
        True,
    ),
    (
        "uvicorn-tls|hypercorn-http2",
        "test_by_the_client_s_fin",
        "tells the application another code than 1006 for a client that vanished",
        True,
    ),
    (
        "uvicorn-tls",
        r"test_malformed_handshake\[HTTP/1.0",
        "tells the application of a GET by 1.1",
        True,
    ),
    (
        "hypercorn-http2",
        "test_malformed_handshake",
        "needs none of these headers: HTTP/2 says it in another way",
        None,
    ),
    # About every second run of each: docs/servers/asgi.md, "clients see a close frame on SIGTERM".
    (
        "granian",
        "test_process_stops|test_the_process_ends|test_many_see_the_end|test_end_under_load",
        "cuts some connections as soon as it is told to end, before the close frame",
        None,
    ),
    (
        "granian",
        "test_(un)?answered_pings",
        "keeps alive by options of its own; ASGI has no pings",
        None,
    ),
]


def why_unable(kind: str, test: str) -> tuple[str, _Always] | None:
    """Return the reason why a kind fails a test, and whether it always does (see above)."""
    for kinds, tests, reason, always in _TABLE:
        if re.fullmatch(kinds, kind) and re.match(tests, test):
            return reason, always
    return None

"""
The abilities that servers lack, with the reason: expected failures of the list of behaviours.

Under ASGI the server speaks the protocol; nearly all of these failures are the server's, and no
application can change them. An expected failure that passes is an error. A test that fails at times
only is not run, and is documented in docs/servers/.
"""

from __future__ import annotations

import re
from typing import Literal

_UVICORN = "uvicorn-(sansio|uvloop|websockets|wsproto)"
_VERSIONS = "no version|version 8|version 14|version no number|draft 76"
_OWN_JUDGE = "the server judges it first, with a status of its own"
_NO_RESPONSES = "without the websocket.http.response extension every refusal is a bare 403"
_LATE_RESET = "hangs up without reading the client's answer to its close frame"

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
    (f"{_UVICORN}|daphne|gunicorn-asgi", "test_early_", "drops bytes behind the handshake", None),
    ("hypercorn", "test_early_", "answers 400 to bytes behind the handshake", True),
    (
        "uvicorn-(sansio|uvloop)|daphne|granian",
        r"test_malformed_handshake\[(OPTIONS|POST|HTTP/1.0)",
        _OWN_JUDGE,
        True,
    ),
    (
        "uvicorn-(websockets|wsproto)|gunicorn-asgi",
        r"test_malformed_handshake\[HTTP/1.0",
        _OWN_JUDGE,
        True,
    ),
    (
        "uvicorn-(sansio|uvloop|websockets)|daphne|hypercorn|granian",
        rf"test_malformed_handshake\[({_VERSIONS})",
        _OWN_JUDGE,
        True,
    ),
    (
        "uvicorn-wsproto",
        r"test_malformed_handshake\[(no version|draft 76)",
        _OWN_JUDGE,
        True,
    ),
    ("hypercorn", r"test_malformed_handshake\[upgrade to h2c", "upgrades to HTTP/2 itself", True),
    (
        "granian",
        r"test_malformed_handshake\[((empty|short) key|key |.*origin|.*host|extensions)",
        "refuses with the status that is asked for, but with the headers of a 101 beside it",
        True,
    ),
    ("daphne", r"test_malformed_handshake\[(host not|extensions)", _NO_RESPONSES, True),
    ("gunicorn-asgi", r"test_malformed_handshake\[(.*host|extensions)", _NO_RESPONSES, True),
    (
        "daphne|gunicorn-asgi",
        "test_login_required_over_ours_redirects|test_refuses_with_a_status|test_unknown_path"
        "|test_limits_on_handshakes|test_websocket_request_to_a_view_that_does_not_accept",
        _NO_RESPONSES,
        True,
    ),
    (
        "daphne|granian",
        "test_headers_and_cookies_of_middleware|test_never_cache_over_ours|test_accepts",
        "sends no headers of the application with the 101",
        True,
    ),
    (
        "daphne|granian|gunicorn-asgi",
        r"test_by_the_client\[",
        "does not tell the application the reason of a close",
        True,
    ),
    (
        "hypercorn",
        r"test_by_the_client\[|test_client_s_close_ends_the_iteration",
        "tells the application 1006, whatever the client's code was",
        True,
    ),
    (
        "uvicorn-(sansio|uvloop|wsproto)|granian",
        "test_by_the_client_s_fin",
        "tells the application 1005 for a client that vanished",
        True,
    ),
    (
        "daphne",
        r"test_exact_types|test_text_is_echoed\[empty",
        "drops empty messages",
        True,
    ),
    (
        "daphne",
        r"test_code_is_the_view_s_choice\[1(001|003|011)|test_process_stops",
        "lets applications close with 1000 and from 3000 on only; clients see 4001 for 1001",
        True,
    ),
    ("daphne", "test_by_close_with_code_and_reason", "sends no reasons", True),
    (
        "daphne",
        r"test_by_the_view\[/(raises|denied)|test_by_a_view_that_breaks",
        "lets applications close with 1000 and from 3000 on only; clients see 4011 for 1011",
        True,
    ),
    # About every second run of each: docs/servers/asgi.md, "clients see a close frame on SIGTERM".
    (
        "granian",
        "test_process_stops|test_the_process_ends|test_many_see_the_end|test_end_under_load",
        "cuts some connections as soon as it is told to end, before the close frame",
        None,
    ),
    ("daphne", r"test_views_end\[", _LATE_RESET, True),
    (
        f"{_UVICORN}|daphne|hypercorn|granian|gunicorn-asgi",
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

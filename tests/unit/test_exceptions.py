"""The exceptions of dwebsocket."""

from __future__ import annotations

import pickle

import pytest

from dwebsocket import ConnectionClosed, HandshakeRefused


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionClosed(), "the connection was closed with 1006"),
        (ConnectionClosed(4000, "why", "peer"), "the connection was closed with 4000: why"),
    ],
)
def test_connection_closed_says_how(error: ConnectionClosed, text: str) -> None:
    """Code and reason, for logs."""
    assert str(error) == text


def test_connection_closed_survives_pickling() -> None:
    """As exceptions do that cross processes."""
    error = pickle.loads(pickle.dumps(ConnectionClosed(4000, "why", "peer")))
    assert (error.code, error.reason, error.by) == (4000, "why", "peer")


def test_a_refusal_has_headers_even_if_empty() -> None:
    """So that no reader of one asks whether there are any."""
    error = pickle.loads(pickle.dumps(HandshakeRefused(403)))
    assert (error.status, error.headers["Content-Type"]) == (403, None)

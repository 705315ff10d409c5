"""Where records say that the server of groups is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwebsocket.conf import group_settings
from dwebsocket.groups import reports
from dwebsocket.groups.backends.postgres import Backend

if TYPE_CHECKING:
    import pytest


def test_a_database_that_is_in_the_settings_no_more(caplog: pytest.LogCaptureFixture) -> None:
    """The thread that listens reports the loss of its server all the same, and goes on."""
    own = group_settings.BackendSettings("dwebsocket.groups.postgres", database="gone")
    made = Backend("default", own)
    assert made.address == ""
    with caplog.at_level("WARNING", "dwebsocket"):
        reports.report(made, "lost", ["the connection is closed"])
    assert "Groups of 'default': the server is lost: the connection is closed" in caplog.messages

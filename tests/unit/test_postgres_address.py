"""Where records say that the server of groups is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dwebsocket.conf import group_settings
from dwebsocket.groups import reports
from dwebsocket.groups.backends.postgres import Backend, parameters

if TYPE_CHECKING:
    from dwebsocket.compat.postgresql import Library


@pytest.fixture
def library() -> Library:
    """Give the library that Django uses."""
    pytest.importorskip("psycopg")
    from dwebsocket.compat import psycopg

    return psycopg.LIBRARY


def test_a_database_that_is_in_the_settings_no_more(caplog: pytest.LogCaptureFixture) -> None:
    """The thread that listens reports the loss of its server all the same, and goes on."""
    own = group_settings.BackendSettings("dwebsocket.groups.postgres", database="gone")
    made = Backend("default", own)
    assert made.address == ""
    with caplog.at_level("WARNING", "dwebsocket"):
        reports.report(made, "lost", ["the connection is closed"])
    assert "Groups of 'default': the server is lost: the connection is closed" in caplog.messages


@pytest.mark.parametrize(
    "location",
    [
        *("postgresql://anna:s3/cret@db/site", "postgresql://anna:12/cret@db/site"),
        *("postgresql://anna:s3@cret@db/site", "postgresql://anna:s3%cret@db/site"),
        "host=db user=anna password=s3 cret",
    ],
)
def test_a_password_that_is_not_escaped_is_shown_nowhere(library: Library, location: str) -> None:
    """The library would take parts of it for a host, a port or a database, and name them."""
    with pytest.raises(ValueError, match=r"connection string|cannot be read") as raised:
        parameters.located(library, location)
    assert "cret" not in str(raised.value)
    assert "s3" not in str(raised.value)


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("postgresql://anna:s3%2Fcret@db:5433/site", "db:5433/site"),
        ("postgresql://anna:s3?cret@db/site", "db:5432/site"),
        ("postgresql://anna@one:1,two:2/site", "one,two:1,2/site"),
        ("host=@abstract dbname=site", "@abstract:5432/site"),
        ("host=/run/postgresql dbname=a@b", "/run/postgresql:5432/a@b"),
    ],
)
def test_addresses_are_read(library: Library, location: str, shown: str) -> None:
    """Addresses of several servers and of sockets are read, too."""
    assert parameters.address(parameters.located(library, location)) == shown

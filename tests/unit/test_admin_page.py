"""The page in Django's admin: what a request may ask for."""

from __future__ import annotations

import pytest
from django.db import connection

from dwebsocket.admin_page import tables


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3", 3),
        ("0", 1),
        ("-3", 1),
        ("", 1),
        ("²", 1),
        ("99999", 10_000),
        pytest.param("9" * 5000, 10_000, id="many digits"),
        pytest.param("0" * 5000, 1, id="many zeros"),
    ],
)
def test_the_admins_page_takes_any_number(text: str, number: int) -> None:
    """Senseless ones are those of the first page, or of the farthest."""
    assert tables.page_number(text) == number


def test_no_user_is_looked_up_by_a_nul_character() -> None:
    """PostgreSQL would raise."""

    def ask(*_: object) -> None:
        raise AssertionError("the database is asked")

    with connection.execute_wrapper(ask):
        assert tables.users_named("an\0na") == []

"""The order of tests whose clients talk without end."""

from __future__ import annotations

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Run the tests of one file one after the other: each of them takes a core and more."""
    item.add_marker(pytest.mark.xdist_group(item.path.stem))

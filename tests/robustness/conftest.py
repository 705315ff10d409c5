"""
Some of these tests run twice: as they are, and with groups in use.

Then every connection of the server is a member of a group, to which is published all the time. What
the tests expect is the same: their clients drop these messages.
"""

from __future__ import annotations

import pytest

from support.raw_peer import RawPeer

WITH_GROUPS = {"test_faults", "test_floods", "test_shutdown", "test_slow_peers"}
PUBLISHED = "published to everybody"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let the tests of these modules run in both ways."""
    if metafunc.module.__name__ in WITH_GROUPS:
        every = pytest.mark.every("the same faults, with groups")
        ways = [pytest.param(False, id="plain"), pytest.param(True, id="groups", marks=every)]
        metafunc.parametrize("uses_groups", ways, indirect=True)


@pytest.fixture
def uses_groups(request: pytest.FixtureRequest) -> bool:
    """Whether all connections are members of a group."""
    return getattr(request, "param", False)


@pytest.fixture(autouse=True)
def _messages_of_the_group(uses_groups: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients drop what is published."""
    if uses_groups:
        monkeypatch.setattr(RawPeer, "ignored", PUBLISHED.encode())


@pytest.fixture
def site_settings(uses_groups: bool) -> dict[str, object]:
    """The settings of the servers."""
    return {"ROOT_URLCONF": "project.group_urls", "PUBLISHED": PUBLISHED} if uses_groups else {}

"""System checks of `WEBSOCKET_GROUPS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from django.core.checks.registry import registry
from django.db import connections
from django.test import modify_settings
from memory_backend import MemoryBackend

from dwebsocket.conf import checks as all_settings
from dwebsocket.groups import backends, checks
from dwebsocket.groups.backends import local
from dwebsocket.testing.groups import groups_of_a_test

if TYPE_CHECKING:
    from django.core.checks import CheckMessage

Override = Callable[..., None]


@pytest.fixture(autouse=True)
def _real_backends() -> Any:
    with backends.replaced(backends.make):
        yield


class Broken(MemoryBackend):
    """One whose server is away."""

    def count(self, name: str) -> int:
        """Ask the server."""
        raise self.unavailable("connection refused")


class Particular(MemoryBackend):
    """One that checks its own settings."""

    def problems(self, *, deploy: bool) -> list[str]:
        """Find a problem with the settings, and one with the server."""
        return ["LOCATION is missing.", *(["The server is too old."] if deploy else [])]


class NoBackend:
    """Something else."""


def use(override: Override, backend: str, **more: Any) -> None:
    """Set the default backend."""
    override(WEBSOCKET_GROUPS={"default": {"BACKEND": backend, **more}})


def found(check: Callable[[], list[CheckMessage]]) -> list[tuple[Any, ...]]:
    """Give what a check says."""
    return [(message.id, message.msg, message.hint) for message in check()]


@pytest.mark.parametrize(
    "backend",
    [
        "dwebsocket.groups.local",
        "dwebsocket.groups.process",
        "memory_backend.MemoryBackend",
        f"{__name__}.Broken",
    ],
)
def test_good_settings(override: Override, backend: str) -> None:
    """Nothing to say; no server is asked."""
    use(override, backend)
    assert checks.check() == []


def test_defaults() -> None:
    """Nothing to say about a project without the setting."""
    assert checks.check() == []


@pytest.mark.parametrize(
    ("backend", "why", "hint"),
    [
        ("dwebsocket.groups.reddis", "reddis", "Did you mean dwebsocket.groups.redis?"),
        ("redis", "redis", "Did you mean dwebsocket.groups.redis?"),
        ("Local", "Local", "Did you mean dwebsocket.groups.local?"),
        ("nowhere.to_be.Found", "No module named 'nowhere'", "Known are dwebsocket.groups.local"),
        (f"{__name__}.NoBackend", "is no subclass of dwebsocket.groups.Backend", "Known are"),
        (f"{__name__}.Missing", "Missing", "Known are"),
    ],
)
def test_unknown_backend(override: Override, backend: str, why: str, hint: str) -> None:
    """An error with the reason, and with what may be meant."""
    use(override, backend)
    ((identity, message, said),) = found(checks.check)
    assert identity == "dwebsocket.E005"
    assert message.startswith(f"WEBSOCKET_GROUPS['default']['BACKEND'] = {backend!r}: ")
    assert why in message
    assert said.startswith(hint)
    assert found(checks.check_deployment) == []


def test_backend_whose_package_is_missing(
    override: Override, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The message names the package."""
    (tmp_path / "needs_more.py").write_text("import a_package_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    use(override, "needs_more")
    ((identity, message, _),) = found(checks.check)
    assert identity == "dwebsocket.E005"
    assert "No module named 'a_package_that_is_missing'" in message


def test_misspelt_key(override: Override, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of all settings says so; this one does not repeat it."""
    use(override, "dwebsocket.groups.process", LOCATON="x")
    assert checks.check() == checks.check_deployment() == []
    monkeypatch.setattr(all_settings.apps, "is_installed", lambda _: True)
    ((identity, message, _),) = found(all_settings.check)
    assert identity == "dwebsocket.E002"
    assert message == (
        "WEBSOCKET_GROUPS ['default'] has the unknown key 'LOCATON': did you mean LOCATION?."
    )


def test_server_that_is_away(override: Override) -> None:
    """Is found with `check --deploy` alone."""
    use(override, f"{__name__}.Broken")
    assert checks.check() == []
    assert found(checks.check_deployment) == [
        (
            "dwebsocket.E006",
            "WEBSOCKET_GROUPS['default']: groups of 'default': connection refused.",
            None,
        )
    ]


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_folder_whose_name_others_may_take(override: Override, tmp_path: Any, mode: int) -> None:
    """A folder for temporary files is empty after a reboot: `check --deploy` warns."""
    (tmp_path / "mine").mkdir()
    tmp_path.chmod(mode)
    use(override, "dwebsocket.groups.local", RUNTIME_DIR=tmp_path / "mine")
    assert checks.check() == []
    [(identity, message, hint)] = found(checks.check_deployment)
    assert identity == "dwebsocket.W008"
    assert f"write to {tmp_path}. After a reboot" in message
    assert f"{tmp_path}/mine/dwebsocket-" in message
    assert "RuntimeDirectory=" in hint


def test_folder_whose_name_no_other_may_take(
    override: Override, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing to say."""
    monkeypatch.setattr(local, "_is_open", lambda folder: False)
    use(override, "dwebsocket.groups.local", RUNTIME_DIR=tmp_path)
    assert checks.check_deployment() == []


def test_problems_that_a_backend_finds_itself(override: Override) -> None:
    """Each is told once."""
    use(override, f"{__name__}.Particular")
    assert [message for _, message, _ in found(checks.check)] == [
        "WEBSOCKET_GROUPS['default']: LOCATION is missing."
    ]
    assert [message for _, message, _ in found(checks.check_deployment)] == [
        "WEBSOCKET_GROUPS['default']: The server is too old."
    ]


def test_every_alias_is_checked(override: Override) -> None:
    """Not only the default one."""
    override(WEBSOCKET_GROUPS={"other": {"BACKEND": "nowhere"}, "third": {"BACKEND": "nowhere"}})
    assert len(found(checks.check)) == 2


def test_registered_by_importing() -> None:
    """Once, and the one that asks servers for deployments only."""
    all_settings.register()
    ours, of_deployment = all_settings.check_groups, all_settings.check_groups_of_deployment
    assert [c for c in registry.get_checks() if c is ours] == [ours]
    assert of_deployment not in registry.get_checks()
    assert of_deployment in registry.get_checks(include_deployment_checks=True)
    assert (ours(), of_deployment()) == (checks.check(), checks.check_deployment())


def test_in_tests_the_replacement_is_checked(override: Override) -> None:
    """A test run needs no server for Django's checks at its start."""
    use(override, f"{__name__}.Broken")
    with groups_of_a_test():
        assert checks.check_deployment() == []


@pytest.mark.parametrize("is_installed", [True, False])
def test_a_history_in_postgres_needs_the_app(override: Override, *, is_installed: bool) -> None:
    """Which brings its tables. No server is asked."""
    entries = {
        "default": connections.settings["default"],
        "away": {"ENGINE": "django.db.backends.postgresql", "NAME": "x", "HOST": "/nowhere"},
    }
    connections.settings["away"] = connections.configure_settings(entries)["away"]
    own = {"DATABASE": "away", "HISTORY": {"room-*": {}}}
    use(override, "dwebsocket.groups.postgres", **own)
    try:
        with modify_settings(INSTALLED_APPS={"append": ["dwebsocket"] if is_installed else []}):
            messages = [message for _, message, _ in found(checks.check)]
        assert [("HISTORY needs tables" in message) for message in messages] == (
            [] if is_installed else [True]
        )
    finally:
        connections.settings.pop("away")

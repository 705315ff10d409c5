"""Django for the unit tests, and live WebSockets over a socket pair."""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
import pytest
from django.conf import settings

if not settings.configured:
    # A file: a database in memory is not closed when its connection is.
    _folder = tempfile.TemporaryDirectory(prefix="dwebsocket-unit-")
    atexit.register(_folder.cleanup)
    settings.configure(
        SECRET_KEY="for tests only",
        ALLOWED_HOSTS=["testserver", "localhost", "[::1]", ".example.com"],
        ROOT_URLCONF="unit_urls",
        MIDDLEWARE=[],
        # The default one takes half a second for each password.
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
        ],
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(Path(_folder.name) / "unit.sqlite3"),
                "OPTIONS": {"timeout": 60},
            }
        },
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        LOGGING_CONFIG=None,
    )
    django.setup()

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connections
from django.db.backends.signals import connection_created
from django.test import override_settings
from django.urls import clear_script_prefix, path
from peer import LiveWebSocket, all_given_back
from visit import Visit, handshake

from dwebsocket import WebSocket, conf
from dwebsocket.api import callbacks
from dwebsocket.api.base import own_websocket
from dwebsocket.compat.django import settings_source
from dwebsocket.runners import loop, thread
from dwebsocket.users import recheck, registry
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper


@pytest.fixture(autouse=True)
def _no_script_prefix_is_left() -> Iterator[None]:
    """Forget the SCRIPT_NAME of the last request, which Django keeps until the next one."""
    yield
    clear_script_prefix()


@pytest.fixture(autouse=True)
def _no_setting_is_left() -> Iterator[None]:
    """
    See that what a test has set is undone.

    `with override_settings(…)` around the first call of `visit`, which uses the fixture `override`,
    restores settings too early, and the fixture brings them back for all later tests.
    """
    before = settings_source()
    yield
    assert settings_source() is before, "settings are left: use the fixture `override` in the test"


@pytest.fixture(autouse=True)
def _no_callback_thread_is_left() -> Iterator[None]:
    """End the thread for callbacks, whose descriptors the next test might count."""
    yield
    # After `close_user` a process listens to others.
    recheck._schedule.is_asked = False
    recheck._schedule.stop_if_idle()
    assert callbacks.dismiss(60)


@pytest.fixture(scope="module")
def tables() -> Iterator[None]:
    """The tables of users and sessions."""
    call_command("migrate", verbosity=0)
    yield
    connections.close_all()


@pytest.fixture
def opened() -> Iterator[list[BaseDatabaseWrapper]]:
    """The connections to a database that any thread opens in the test, each time."""
    found: list[BaseDatabaseWrapper] = []

    def note(connection: BaseDatabaseWrapper, **_: Any) -> None:
        found.append(connection)

    connection_created.connect(note)
    yield found
    connection_created.disconnect(note)


@pytest.fixture
def nobody_left() -> Iterator[None]:
    """All visitors have left at the end of the test."""
    yield

    def is_empty() -> bool:
        # Does nothing while the thread that looks at the visitors has the lock.
        registry._register.sweep()
        return not registry._register.visitors

    eventually(is_empty, what="nobody is left")


@pytest.fixture
def anna(tables: None) -> Iterator[User]:
    """A user."""
    user = User.objects.create_user("anna", password="secret")
    yield user
    User.objects.filter(username="anna").delete()


@pytest.fixture
def override(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Set Django's settings for the rest of the test: `override(NAME=value)`."""
    with contextlib.ExitStack() as undo:

        def set_(**values: Any) -> None:
            undo.enter_context(override_settings(**values))

        yield set_


@pytest.fixture
def open_websocket() -> Iterator[Callable[..., LiveWebSocket]]:
    """
    Open WebSockets over socket pairs: `open_websocket(WebSocket, subprotocol=…, early=…, …)`.

    Further keywords are options as of the decorators. At the end every connection must be given
    back.
    """
    opened: list[LiveWebSocket] = []

    def open_(
        cls: type[WebSocket] = WebSocket,
        *,
        subprotocol: str | None = None,
        early: bytes = b"",
        **options: Any,
    ) -> LiveWebSocket:
        overrides = conf.overrides("test", options)
        live = LiveWebSocket(cls(), conf.Options.current(overrides), subprotocol, early)
        opened.append(live)
        return live

    with all_given_back():
        yield open_
        for live in opened:
            live.websocket.close()
            live.client.vanish()


@pytest.fixture
def visit(override: Callable[..., None]) -> Iterator[Callable[..., Visit]]:
    """
    Send a request through Django: `visit(view, middleware=[…], environ=…, early=…)`.

    Gives the visit with its response (a WebSocket handshake by default). At the end every view
    must have ended and every connection must be given back.
    """
    visits: list[Visit] = []

    def visit_(
        view: Callable[..., Any],
        *,
        middleware: list[str] | None = None,
        environ: dict[str, Any] | None = None,
        in_async_chain: bool = False,
        early: bytes = b"",
        read_ahead: bytes = b"",
    ) -> Visit:
        override(ROOT_URLCONF=(path("", view), path("<int:number>/", view)))
        override(MIDDLEWARE=middleware or [])
        made = Visit(handshake() if environ is None else environ, early, read_ahead)
        visits.append(made)
        # Values that middleware sets must not outlive the request.
        answer = made.answer_async if in_async_chain else made.answer
        contextvars.copy_context().run(answer)
        return made

    with all_given_back():
        yield visit_
        for made in visits:
            made.close()
            # Like the server, which is done with it.
            made.response = None
        assert thread.join(60)
        assert loop.join(60)


@pytest.fixture
def own() -> Iterator[Callable[[WebSocket], None]]:
    """Make the test the view of a WebSocket: `own(websocket)`."""
    tokens = []
    yield lambda websocket: tokens.append(own_websocket.set(websocket))
    for token in reversed(tokens):
        own_websocket.reset(token)


@pytest.fixture
def request_log(caplog: pytest.LogCaptureFixture) -> Callable[..., list[logging.LogRecord]]:
    """Give what was logged: `request_log("django.request")`, from DEBUG up."""
    caplog.set_level(logging.DEBUG, logger="dwebsocket")
    caplog.set_level(logging.DEBUG, logger="django")

    def records(*names: str) -> list[logging.LogRecord]:
        return [record for record in caplog.records if not names or record.name in names]

    return records

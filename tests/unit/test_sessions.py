"""A view's session and the pages that write the same one meanwhile."""

from __future__ import annotations

import importlib
import logging
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.sessions.backends.base import UpdateError
from django.db import connections, transaction
from django.utils import timezone
from threads import in_plain_thread

from dwebsocket import accept_websocket
from dwebsocket.runners import loop, thread
from dwebsocket.users import authentication, sessions

if TYPE_CHECKING:
    from pathlib import Path

    from visit import Serve

Log = Callable[..., list[logging.LogRecord]]

CACHE = importlib.import_module("django.contrib.sessions.backends.cache").SessionStore
DB = importlib.import_module("django.contrib.sessions.backends.db").SessionStore
FILE = importlib.import_module("django.contrib.sessions.backends.file").SessionStore

both = pytest.mark.parametrize("as_async", [False, True], ids=["sync", "async"])

# That of the request, for the middleware below.
given: dict[str, Any] = {}


def give_session(get_response: Any) -> Any:
    """Middleware: give the request the session of the test, unread."""

    def middleware(request: Any) -> Any:
        request.session = given["store"](given["key"])
        if given["is_read"]:
            request.session.get("anything")
        return get_response(request)

    return middleware


@pytest.fixture(params=[CACHE, FILE], ids=["cache", "file"])
def store(request: pytest.FixtureRequest, override: Any, tmp_path: Any) -> Iterator[Any]:
    """A class of sessions."""
    override(SESSION_FILE_PATH=str(tmp_path))
    vars(FILE).get("_storage_path") and delattr(FILE, "_storage_path")
    yield request.param
    vars(FILE).get("_storage_path") and delattr(FILE, "_storage_path")


@pytest.fixture(params=[False, True], ids=["read by the view", "read by middleware"])
def session(request: pytest.FixtureRequest, store: Any) -> Any:
    """A stored session, which is that of the next request."""
    stored = store()
    stored.update({"kept": "before", "changed": "before", "deleted": 1, "nested": {"list": [1]}})
    stored.create()
    stored.update({"kept": "before", "changed": "before", "deleted": 1, "nested": {"list": [1]}})
    stored.save()
    given.update(store=store, key=stored.session_key, is_read=request.param)
    return stored


def now_stored(session: Any) -> dict[str, Any]:
    """Give the stored values."""
    return dict(type(session)(session.session_key).items())


def elsewhere(session: Any, **values: Any) -> None:
    """Write the session as a page does."""
    page = type(session)(session.session_key)
    page.update(values)
    page.save()


def run(visit: Serve, work: Callable[[Any], Any], *, as_async: bool) -> None:
    """Run a view to its end, whose session does as ``work`` says."""

    @accept_websocket
    def view(request: Any) -> None:
        work(request.session)

    @accept_websocket
    async def aview(request: Any) -> None:
        await sync_to_async(work)(request.session)

    made = visit(aview if as_async else view, middleware=["test_sessions.give_session"])
    made.serve().client.closing()
    assert thread.join(10)
    assert loop.join(10)


@both
class TestMerge:
    """Only the keys that the view has changed are saved."""

    def test_what_pages_write_meanwhile_stays(
        self, visit: Serve, session: Any, as_async: bool
    ) -> None:
        """New keys, changed ones, and those that neither has touched."""

        def work(own: Any) -> None:
            own["changed"] = "by the view"
            del own["deleted"]
            elsewhere(session, cart=[1, 2], kept="by a page")
            own["new"] = "by the view"

        run(visit, work, as_async=as_async)
        assert now_stored(session) == {
            "kept": "by a page",
            "changed": "by the view",
            "cart": [1, 2],
            "new": "by the view",
            "nested": {"list": [1]},
        }

    def test_change_within_a_value(self, visit: Serve, session: Any, as_async: bool) -> None:
        """As Django has it: with `modified` set by hand."""

        def work(own: Any) -> None:
            own["nested"]["list"].append(2)
            own.modified = True
            elsewhere(session, kept="by a page")

        run(visit, work, as_async=as_async)
        stored = now_stored(session)
        assert (stored["nested"], stored["kept"]) == ({"list": [1, 2]}, "by a page")

    def test_both_write_one_key(self, visit: Serve, session: Any, as_async: bool) -> None:
        """The last one counts, as between two pages."""

        def work(own: Any) -> None:
            own["changed"] = "by the view"
            elsewhere(session, changed="by a page")

        run(visit, work, as_async=as_async)
        assert now_stored(session)["changed"] == "by the view"

    def test_page_that_deletes(self, visit: Serve, session: Any, as_async: bool) -> None:
        """Keys that the view has not touched are not brought back."""

        def work(own: Any) -> None:
            own["changed"] = "by the view"
            page = type(session)(session.session_key)
            del page["kept"]
            page.save()

        run(visit, work, as_async=as_async)
        assert "kept" not in now_stored(session)

    def test_saved_by_hand_again_and_again(
        self, visit: Serve, session: Any, as_async: bool
    ) -> None:
        """Each time with what has changed since the last."""

        def work(own: Any) -> None:
            own["changed"] = "first"
            elsewhere(session, kept="by a page")
            own.save()
            assert own["kept"] == "by a page"
            elsewhere(session, changed="by a page")
            own["new"] = 1
            own.save()

        run(visit, work, as_async=as_async)
        stored = now_stored(session)
        assert (stored["changed"], stored["kept"], stored["new"]) == ("by a page", "by a page", 1)

    def test_session_that_is_gone(
        self, visit: Serve, session: Any, request_log: Log, as_async: bool
    ) -> None:
        """Is not brought back, neither at the end nor by hand."""
        raised: list[Exception] = []

        def work(own: Any) -> None:
            own["changed"] = "by the view"
            type(session)(session.session_key).delete()
            if as_async:
                try:
                    own.save()
                except UpdateError as error:
                    raised.append(error)

        run(visit, work, as_async=as_async)
        assert not session.exists(session.session_key)
        assert len(raised) == as_async
        messages = [record.getMessage() for record in request_log("dwebsocket")]
        told = ["The session ended while its WebSocket was open: /"]
        assert messages == ([] if as_async else told)

    def test_session_that_has_expired(
        self, visit: Serve, session: Any, request_log: Log, tmp_path: Path, as_async: bool
    ) -> None:
        """Is not brought back; the store of files has a new one by then, which is deleted."""

        def work(own: Any) -> None:
            own["changed"] = "by the view"
            yesterday = timezone.now() - timedelta(days=1)
            elsewhere(session, _session_expiry=yesterday.isoformat())

        run(visit, work, as_async=as_async)
        assert not session.exists(session.session_key)
        assert list(tmp_path.iterdir()) == []
        messages = [record.getMessage() for record in request_log("dwebsocket")]
        assert messages == ["The session ended while its WebSocket was open: /"]

    def test_session_that_the_view_clears(self, visit: Serve, session: Any, as_async: bool) -> None:
        """All keys that it knew are gone."""

        def work(own: Any) -> None:
            own.clear()
            own["new"] = 1

        run(visit, work, as_async=as_async)
        assert now_stored(session) == {"new": 1}


@pytest.mark.usefixtures("tables")
def test_sign_out_inside_a_transaction(visit: Serve, request_log: Log) -> None:
    """On SQLite the view waits for its commit, and brings nothing back; neither fails."""
    stored = DB()
    stored["kept"] = 1
    stored.create()
    given.update(store=DB, key=stored.session_key, is_read=True)
    deleted = threading.Event()

    def sign_out() -> None:
        with transaction.atomic():
            DB(stored.session_key).delete()
            deleted.set()
            # The view's save begins meanwhile.
            time.sleep(0.2)
        connections.close_all()

    def work(own: Any) -> None:
        own["new"] = 1
        signing_out = in_plain_thread(sign_out)
        assert deleted.wait(10)
        with pytest.raises(UpdateError):
            own.save()
        signing_out.result(10)

    run(visit, work, as_async=False)
    assert not DB().exists(stored.session_key)
    assert [r for r in request_log("django.request") if r.levelno > logging.INFO] == []


class Replacing(DB):  # type: ignore[misc, valid-type]
    """Sessions like those of django-user-sessions: a new one replaces one that is gone."""

    def load(self) -> Any:
        """Give the stored values, those of a new session at the worst."""
        data = super().load()
        if self.session_key is None:
            self.create()
        return data

    def save(self, must_create: bool = False) -> None:
        """Save it, stored or not."""
        try:
            super().save(must_create)
        except UpdateError:
            super().save(must_create=True)


@pytest.fixture
def replacing(tables: object) -> Any:
    """A stored session of that class, which is that of the next request."""
    Replacing.get_model_class().objects.all().delete()
    stored = Replacing()
    stored["_auth_user_id"] = "7"
    stored.create()
    given.update(store=Replacing, key=stored.session_key, is_read=True)
    return stored


class TestStoreThatReplaces:
    """A session that has ended leaves nothing behind."""

    @both
    def test_view_that_saves(
        self, visit: Serve, request_log: Log, replacing: Any, as_async: bool
    ) -> None:
        """The values that the view has set are gone with the session, but not for the view."""
        found: list[str] = []

        def work(own: Any) -> None:
            own["new"] = "by the view"
            replacing.delete()
            if as_async:
                with pytest.raises(UpdateError, match="deleted while its WebSocket was open"):
                    own.save()
            found.append(own["new"])

        run(visit, work, as_async=as_async)
        assert found == ["by the view"]
        assert list(replacing.model.objects.all()) == []
        messages = [record.getMessage() for record in request_log("dwebsocket")]
        told = ["The session ended while its WebSocket was open: /"]
        assert messages == ([] if as_async else told)

    def test_session_that_is_there(self, visit: Serve, replacing: Any) -> None:
        """It is merged as those of other stores."""

        def work(own: Any) -> None:
            elsewhere(replacing, kept="by a page")
            own["new"] = "by the view"

        run(visit, work, as_async=False)
        values = {"_auth_user_id": "7", "kept": "by a page", "new": "by the view"}
        assert now_stored(replacing) == values

    def test_look_whether_a_user_is_signed_in(self, replacing: Any) -> None:
        """To look for a session makes no new one."""
        assert authentication.login_in(Replacing, replacing.session_key) == "7"
        replacing.delete()
        assert authentication.login_in(Replacing, replacing.session_key) == ""
        assert list(replacing.model.objects.all()) == []


def test_class_looks_as_it_did(store: Any) -> None:
    """Django's signature of stored data is over its name."""
    session = store("k" * 32)
    salt, name = session.key_salt, repr(type(session))
    sessions.keep(session)
    assert isinstance(session, store)
    assert (session.key_salt, repr(type(session))) == (salt, name)
    once = type(session)
    sessions.keep(session)
    assert type(session) is once


def test_another_session_of_its_class(session: Any) -> None:
    """A view may make a new session, and change one that is stored."""
    own = type(session)(session.session_key)
    sessions.keep(own)
    new, stored = type(own)(), type(own)(session.session_key)
    new["kept"] = stored["changed"] = "by the view"
    for each in (new, stored):
        each.save()
    assert now_stored(new) == {"kept": "by the view"}
    assert now_stored(session)["changed"] == "by the view"


def test_pickled_session() -> None:
    """A pickled session is one of a page, and the view's own goes on."""
    session = DB()
    session["kept"] = 1
    sessions.keep(session)
    pickled = pickle.loads(pickle.dumps(session))
    assert (type(pickled), dict(pickled.items())) == (DB, {"kept": 1})
    assert "_digests" not in vars(pickled)
    assert "_digests" in vars(session)


def test_what_is_no_session_of_djangos() -> None:
    """A session object that is not Django's keeps its class."""

    class Own:
        modified = True

    own = Own()
    sessions.keep(own)
    assert (type(own), own.modified) == (Own, False)


def test_value_that_cannot_be_stored_always_counts_as_changed() -> None:
    """Django raises when it saves it: it must not be taken for one that is stored already."""
    session, data = CACHE(), {"stored": 1, "open file": object()}
    first, second = (sessions._digests(session, data) for _ in range(2))
    assert first["stored"] == second["stored"]
    assert first["open file"] != second["open file"]

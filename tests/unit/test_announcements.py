"""Announced sign-outs are hints: each process asks its own database."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from accounts import BACKEND, MIDDLEWARE
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import DatabaseError, connection, connections, transaction
from django.test import RequestFactory, TestCase, override_settings
from visit import Serve, handshake
from waiting_views import awaits, waits

from dwebsocket import WebSocket, close_user, conf
from dwebsocket.api.waiting.waiter import THREAD
from dwebsocket.groups import backends, reports
from dwebsocket.testing.clock import Clock
from dwebsocket.users import announcements, authentication, recheck, registry
from dwebsocket.users.announcements import Announcement, Listener
from dwebsocket.users.registry import Visitor, Who, digest
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

Override = Callable[..., None]

pytestmark = pytest.mark.usefixtures("tables", "nobody_left")
both = pytest.mark.parametrize("view", [waits, awaits])


@pytest.fixture(autouse=True)
def _sessions(override: Override) -> None:
    """Sessions are rows, unless a test says otherwise; each test has groups of its own."""
    override(SESSION_ENGINE="django.contrib.sessions.backends.db")


def sign_in(user: User) -> str:
    """Log in as by a form; give the session's key."""
    from django.conf import settings

    request: Any = RequestFactory().get("/")
    request.session = import_module(settings.SESSION_ENGINE).SessionStore()
    login(request, user, backend=BACKEND)
    request.session.save()
    return str(request.session.session_key)


def enter(visit: Serve, key: str, view: Any = waits) -> Any:
    """Open a WebSocket with a session."""
    environ = handshake(HTTP_COOKIE=f"sessionid={key}")
    return visit(view, middleware=MIDDLEWARE, environ=environ).serve()


def goes_on(made: Any) -> None:
    """See that a connection is open, and end it."""
    made.client.close(4000)
    assert made.client.closing()[0] == 4000


def hear(text: str | dict[str, Any]) -> None:
    """Receive what another process announces."""
    text = text if isinstance(text, str) else json.dumps(text)
    backends.backend("default").send("dwebsocket.sign-outs", text, [])


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note of how many users each question was."""
    found: list[int] = []
    ask = authentication.signed_out

    def noted(visitors: Any) -> Any:
        answer = ask(visitors)
        found.append(len(visitors))
        return answer

    monkeypatch.setattr(authentication, "signed_out", noted)
    return found


def until_heard(visit: Serve, bert_key: str) -> None:
    """Sleep until everything that was announced before has been looked at."""
    last = enter(visit, bert_key)
    Session.objects.filter(pk=bert_key)._raw_delete("default")
    hear({"users": [], "sessions": [digest(bert_key)]})
    assert last.client.closing() == (4401, "signed out")


@pytest.fixture
def bert() -> Iterator[User]:
    """Another one."""
    user = User.objects.create_user("bert", password="secret")
    yield user
    User.objects.filter(username="bert").delete()


@both
@pytest.mark.parametrize("change", ["users", "sessions"])
def test_one_who_is_signed_in_stays(
    visit: Serve, anna: User, bert: User, view: Any, change: str
) -> None:
    """
    Whoever announces a change.

    The user of another site with the same key and `SECRET_KEY`, an announcement that comes late, or
    one that is sent again.
    """
    key = sign_in(anna)
    made = enter(visit, key, view)
    hear({"users": [str(anna.pk)]} if change == "users" else {"sessions": [digest(key)]})
    until_heard(visit, sign_in(bert))
    goes_on(made)


@both
def test_one_who_is_not_is_closed(visit: Serve, anna: User, view: Any) -> None:
    """As this process's own database says; the reason is that of the database."""
    made = enter(visit, sign_in(anna), view)
    User.objects.filter(pk=anna.pk).update(is_active=False)
    hear({"users": [str(anna.pk)], "sessions": []})
    assert made.client.closing() == (4401, "deactivated")


@pytest.mark.parametrize(
    "text", ["", "no JSON", "7", "[]", '{"users": 7}', '{"users": [7, null]}', '{"sessions": {}}']
)
def test_nonsense(visit: Serve, anna: User, bert: User, text: str) -> None:
    """Is ignored, and what comes behind it is not."""
    made = enter(visit, sign_in(anna))
    hear(text)
    until_heard(visit, sign_in(bert))
    goes_on(made)


def test_no_thread_to_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next WebSocket tries it again."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    heard: list[Announcement] = []
    listener = Listener(heard.append)
    with monkeypatch.context() as patch:
        patch.setattr(THREAD, "at_end", refuse)
        with pytest.raises(RuntimeError):
            listener.start(THREAD)
    assert not listener.hears
    listener.start(THREAD)
    hear({"users": ["7"]})
    eventually(lambda: heard, what="it has heard that")
    assert heard[0].hints == [("users", "7")]
    listener.stop()


def test_a_process_without_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listens once it has called `close_user`: others may ask what they have missed."""
    said: list[str] = []
    monkeypatch.setattr(announcements, "_lately", deque())
    monkeypatch.setattr(recheck, "_schedule", recheck.Schedule())
    monkeypatch.setattr(announcements, "repeat", lambda: said.append("repeat"))
    close_user(7)
    hear({"asks": True})
    eventually(lambda: said, what="it answers")
    recheck._schedule.stop_if_idle()
    assert recheck._schedule._listener.hears
    recheck._schedule._listener.stop()


class TestMissed:
    """The backend of groups was away: a process may have missed what others have announced."""

    @pytest.fixture(params=[[], ["dwebsocket.sign-outs", "room"]], ids=["all", "this-group"])
    def interrupt(self, request: pytest.FixtureRequest) -> Callable[[], object]:
        """Report that as a backend does."""
        kind = "interrupted" if request.param else "regained"
        return lambda: reports.report(backends.backend("default"), kind, request.param)

    @both
    def test_sign_outs(
        self,
        visit: Serve,
        anna: User,
        view: Any,
        interrupt: Callable[[], object],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """All users are looked up, and others are asked for whom they have closed."""
        asked: list[str] = []
        monkeypatch.setattr(announcements, "ask", lambda: asked.append("close_user"))
        made = enter(visit, sign_in(anna), view)
        User.objects.filter(pk=anna.pk).update(is_active=False)
        interrupt()
        assert asked == ["close_user"]
        assert made.client.closing() == (4401, "deactivated")

    def test_others_stay(
        self,
        visit: Serve,
        anna: User,
        bert: User,
        looked: list[int],
        interrupt: Callable[[], object],
    ) -> None:
        """Of a user who is signed in, and where another group or backend was away."""
        made = enter(visit, sign_in(anna))
        reports.report(backends.backend("default"), "interrupted", ["room"])
        reports.interrupted.send(sender=None, using="other", groups=[])
        until_heard(visit, sign_in(bert))
        before = sum(looked)
        interrupt()
        eventually(lambda: sum(looked) > before, what="the user is looked up")
        goes_on(made)

    def test_while_the_database_is_away_and_nobody_is_rechecked(
        self, visit: Serve, override: Override, anna: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They are looked up again some seconds later, and a user who has signed out is found."""
        override(WEBSOCKET_AUTH_RECHECK=0)
        made = enter(visit, sign_in(anna))
        User.objects.filter(pk=anna.pk).update(is_active=False)
        failed: list[object] = []

        def fail(visitors: object) -> None:
            failed.append(visitors)
            raise DatabaseError("it is away")

        with monkeypatch.context() as patch:
            patch.setattr(authentication, "signed_out", fail)
            recheck._schedule.recheck_all()
            eventually(lambda: failed and not recheck._schedule._is_working)
        eventually(lambda: Clock().advance(5) or not recheck._schedule._todo)
        assert made.client.closing() == (4401, "deactivated")

    def test_before_the_first_user_is_in(
        self, visit: Serve, anna: User, looked: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That user is looked up as the WebSocket opens, and all are again at the next time."""
        made = enter(visit, sign_in(anna))
        schedule = recheck.Schedule()
        schedule.recheck_all()
        used = recheck._schedule
        monkeypatch.setattr(recheck, "_schedule", schedule)
        schedule.use(used._spawn, used._databases)  # type: ignore[arg-type]
        before = sum(looked)
        schedule.recheck_all()
        eventually(lambda: sum(looked) > before, what="the user is looked up")
        goes_on(made)

    @pytest.mark.parametrize("age", [0.0, 30])
    def test_close_user(self, visit: Serve, anna: User, bert: User, age: float) -> None:
        """Closes what was open then; who has come back since stays."""
        made = enter(visit, sign_in(anna))
        hear({"closes": [[str(anna.pk), 4000, "bye", age]]})
        if age:
            until_heard(visit, sign_in(bert))
            goes_on(made)
        else:
            assert made.client.closing() == (4000, "bye")

    @pytest.mark.parametrize(
        "closes", [7, [7], [["x"]], [["x", "4000", "bye", 0]], [[7, 4000, "bye", 0]], [None]]
    )
    def test_nonsense(self, visit: Serve, anna: User, bert: User, closes: object) -> None:
        """Is ignored."""
        made = enter(visit, sign_in(anna))
        hear({"closes": closes, "asks": 7})
        until_heard(visit, sign_in(bert))
        goes_on(made)


def test_one_question_for_many(visit: Serve, anna: User, bert: User, looked: list[int]) -> None:
    """However many announcements came while the database had not answered."""
    users = [User.objects.create_user(f"u{number}", password="x") for number in range(30)]
    visitors = []
    for user in users:
        who = Who(user=str(user.pk), auth_hash=user.get_session_auth_hash(), is_stored=True)
        visitor = registry.enter(who, WebSocket(), conf.Admission.current())
        assert isinstance(visitor, Visitor)
        visitors.append(visitor)
    # The database is busy: who asks has to wait.
    made = enter(visit, sign_in(anna))
    jobs: list[Callable[[], object]] = []
    recheck._schedule.use(lambda name, job: jobs.append(job), {})
    looked.clear()
    for user in users:
        hear({"users": [str(user.pk)]})
    queries: list[str] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        queries.append(sql)
        return execute(sql, *rest)

    wanted = recheck._schedule._wanted
    eventually(lambda: len(wanted) == len(users), what="all have come")
    with connection.execute_wrapper(note):
        (job,) = jobs
        job()
    # What comes as the listener takes a new mailbox may be heard twice, and asked for once more.
    assert looked[0] == 30
    assert len(queries) == len(looked)
    goes_on(made)
    for visitor in visitors:
        visitor.leave()
    User.objects.filter(username__startswith="u").delete()


def test_cannot_be_asked(
    visit: Serve, anna: User, monkeypatch: pytest.MonkeyPatch, request_log: Callable[..., Any]
) -> None:
    """The client is to come back: its handshake asks again."""
    made = enter(visit, sign_in(anna))

    def fail(_: object) -> None:
        raise OSError("no database")

    monkeypatch.setattr(authentication, "signed_out", fail)
    hear({"users": [str(anna.pk)]})
    assert made.client.closing() == (1013, "try again later")
    (record,) = [each for each in request_log("dwebsocket") if each.levelname == "ERROR"]
    assert "cannot be looked up" in record.getMessage()


class TestSignedCookies:
    """Sessions that no database has: the announcement alone knows of their end."""

    @pytest.fixture(autouse=True)
    def _engine(self, _sessions: None, override: Override) -> None:
        override(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies")

    def test_the_cookie_is_closed(self, visit: Serve, anna: User) -> None:
        """And no other one of the user."""
        key = sign_in(anna)
        made = enter(visit, key)
        hear({"users": [str(anna.pk)], "sessions": [digest("another")]})
        hear({"sessions": [digest(key)]})
        assert made.client.closing() == (4401, "signed out")


class TestAnotherDatabase:
    """A copy of the user there is not the user."""

    @pytest.fixture
    def archive(self, anna: User, tmp_path: Path) -> Iterator[str]:
        """Another database that has the same rows."""
        default = connections["default"]
        name = str(tmp_path / "archive.sqlite3")
        shutil.copy(default.settings_dict["NAME"], name)
        connections.databases["archive"] = {**default.settings_dict, "NAME": name}
        yield "archive"
        connections["archive"].close()
        del connections["archive"], connections.databases["archive"]

    def test_changes_there_close_nobody(self, visit: Serve, anna: User, archive: str) -> None:
        """Deactivated, with another password, deleted."""
        made = enter(visit, sign_in(anna))
        copy = User.objects.using(archive).get(pk=anna.pk)
        copy.is_active = False
        copy.save()
        copy.set_password("better")
        copy.save(using=archive)
        anna.is_active = False
        anna.save(using=archive)
        copy.delete()
        with transaction.atomic(using=archive):
            Session.objects.using(archive).all().delete()
        goes_on(made)

    def test_users_of_a_router(self, visit: Serve, anna: User, archive: str) -> None:
        """Where users are written is where they are asked for."""
        with override_settings(DATABASE_ROUTERS=["test_announcements.Router"]):
            made = enter(visit, sign_in(anna))
            User.objects.get(pk=anna.pk).delete(using="default")
            user = User.objects.get(pk=anna.pk)
            user.is_active = False
            user.save()
            assert made.client.closing() == (4401, "deactivated")

    def test_in_a_transaction_of_another(self, visit: Serve, anna: User, archive: str) -> None:
        """What is not committed there decides nothing, and nothing is closed by a rollback."""
        made = enter(visit, sign_in(anna))
        with transaction.atomic():
            User.objects.filter(pk=anna.pk).update(is_active=False)
            # Committed at once: it asks, and must not see the row above.
            User.objects.using(archive).get(pk=anna.pk).delete()
            eventually(lambda: not recheck._schedule._is_checking, what="it was asked")
            transaction.set_rollback(True)
        goes_on(made)


class Router:
    """Has users in the archive."""

    def db_for_read(self, model: type, **_: Any) -> str | None:
        """Give the archive."""
        return "archive" if issubclass(model, User) else None

    db_for_write = db_for_read


def test_within_a_block_of_a_test_case(visit: Serve, anna: User) -> None:
    """The test's connection is asked, which alone has its rows."""
    made = enter(visit, sign_in(anna))
    blocks = TestCase._enter_atomics()  # type: ignore[attr-defined]
    try:
        with transaction.atomic():
            User.objects.get(pk=anna.pk).delete()
            assert made.client.closing() == (4401, "deleted")
    finally:
        TestCase._rollback_atomics(blocks)  # type: ignore[attr-defined]


def test_hint_names_no_session() -> None:
    """Whoever reads announcements learns no key of a session."""
    who = Who(session="a-secret-key", user="7")
    assert "a-secret-key" not in str(who.keys())
    text = json.dumps({"sessions": [digest("a-secret-key")]})
    assert announcements.read(text).hints == [("sessions", who.keys()[1][1])]


# Another process of this project: with users of its own, or with the same.
ELSEWHERE = """
import sys
from django.conf import settings
settings.configure(
    SECRET_KEY="for tests only",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "dwebsocket"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    USE_TZ=True,
)
import django
django.setup()
from django.contrib.auth.models import User
user = User.objects.get(pk=sys.argv[2])
user.is_active = False
user.save()
"""


def test_two_sites_with_one_secret_key(
    visit: Serve, override: Override, anna: User, tmp_path: Path
) -> None:
    """Users of one have the keys of the other's, who stay; those of the same site do not."""
    # The client of this test answers none.
    override(WEBSOCKET_PING_INTERVAL=None)
    name = connections["default"].settings_dict["NAME"]
    other = str(tmp_path / "other.sqlite3")
    shutil.copy(name, other)
    made = enter(visit, sign_in(anna))
    for database in (other, name):
        assert User.objects.get(pk=anna.pk).is_active
        subprocess.run(
            [sys.executable, "-c", ELSEWHERE, database, str(anna.pk)], check=True, timeout=60
        )
        if database is other:
            until_heard(visit, sign_in(anna))
    assert made.client.closing() == (4401, "deactivated")

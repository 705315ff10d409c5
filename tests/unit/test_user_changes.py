"""Which changes of users and sessions are announced: those after which somebody is signed out."""

from __future__ import annotations

import copy
import inspect
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from accounts import BACKEND
from asgiref.sync import async_to_sync
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.contrib.sessions.backends import db, file
from django.contrib.sessions.models import Session
from django.core import management, serializers
from django.db import connections, transaction
from django.db.models.signals import post_delete
from django.test import RequestFactory
from django.utils import timezone

from dwebsocket.users import announcements, sign_out
from dwebsocket.users.registry import digest

if TYPE_CHECKING:
    from pathlib import Path

    from dwebsocket.users.announcements import Hint

Override = Callable[..., None]

pytestmark = pytest.mark.usefixtures("tables")


class Countersigned(User):
    """A user whose sessions end with another field, too, and who is active by a method."""

    class Meta:
        """No table of its own."""

        app_label = "auth"
        proxy = True

    def get_session_auth_hash(self) -> str:
        """Give the hash."""
        return f"{super().get_session_auth_hash()} {self.last_name}"


@pytest.fixture(autouse=True)
def _listening() -> None:
    sign_out.listen_in_all()


@pytest.fixture
def hints(monkeypatch: pytest.MonkeyPatch) -> list[Hint]:
    """Note what is announced."""
    found: list[Hint] = []
    monkeypatch.setattr(announcements, "announce", found.append)
    return found


class Prepared(User):
    """A user whose sessions depend on an attribute that objects get when they are made."""

    class Meta:
        """No table of its own."""

        app_label = "auth"
        proxy = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.suffix = "v1"

    def get_session_auth_hash(self) -> str:
        """Give the hash."""
        return f"{super().get_session_auth_hash()} {self.suffix}"


def again(anna: User, model: type[User] = User) -> User:
    """Read a user from the database."""
    return model.objects.get(pk=anna.pk)


def rename(user: User, **options: Any) -> None:
    """Change what signs nobody out."""
    user.first_name += "A"
    user.save(**options)


def deactivate(user: User, **options: Any) -> None:
    """Change what does."""
    user.is_active = False
    user.save(**options)


def set_password(user: User) -> None:
    """The same."""
    user.set_password("better")
    user.save()


def save_copy(user: User) -> None:
    """Save an object that was not read from the row."""
    fields = user._meta.concrete_fields
    User(**{field.attname: getattr(user, field.attname) for field in fields}).save()


def load_fixture(user: User) -> None:
    """Save a row as `loaddata` does."""
    for each in serializers.deserialize("json", serializers.serialize("json", [user])):
        each.save()


UNIMPORTANT: dict[str, Callable[[User], object]] = {
    "another field": rename,
    "nothing": lambda user: user.save(),
    "the time of a login": lambda user: user.save(update_fields=["last_login"]),
    "twice": lambda user: (rename(user), rename(user)),
    "a part of it": lambda user: rename(User.objects.only("first_name").get(pk=user.pk)),
    "without a field": lambda user: rename(User.objects.defer("password").get(pk=user.pk)),
    "a pickled one": lambda user: rename(pickle.loads(pickle.dumps(user))),
    "a copy in memory": lambda user: rename(copy.deepcopy(user)),
    "a field that is not written": lambda user: deactivate(user, update_fields=["first_name"]),
}
IMPORTANT: dict[str, Callable[[User], object]] = {
    "password": set_password,
    "no password": lambda user: (user.set_unusable_password(), user.save()),
    "deactivated": deactivate,
    "deactivated alone": lambda user: deactivate(user, update_fields=["is_active"]),
    "a part of it": lambda user: deactivate(User.objects.only("is_active").get(pk=user.pk)),
    "an object that was not read": save_copy,
    "a fixture": load_fixture,
    "deleted": lambda user: User.objects.get(pk=user.pk).delete(),
    "deleted with others": lambda user: User.objects.filter(pk=user.pk).delete(),
}


@pytest.mark.parametrize("change", UNIMPORTANT)
def test_nobody_is_signed_out(anna: User, hints: list[Hint], change: str) -> None:
    """By a change of anything else: nothing is announced."""
    UNIMPORTANT[change](again(anna))
    assert hints == []


@pytest.mark.parametrize("change", IMPORTANT)
def test_somebody_may_be_signed_out(anna: User, hints: list[Hint], change: str) -> None:
    """By another hash, another `is_active`, or when that is not known. Announced once."""
    IMPORTANT[change](again(anna))
    assert hints == [("users", str(anna.pk))]


def test_new_user(hints: list[Hint]) -> None:
    """Nobody was signed in before; the object is known from then on."""
    user = User.objects.create_user("new", password="secret")
    rename(user)
    assert hints == []
    set_password(user)
    assert len(hints) == 1
    user.delete()


def test_once(anna: User, hints: list[Hint]) -> None:
    """Later saves of the object change nothing more."""
    user = again(anna)
    deactivate(user)
    rename(user)
    deactivate(user)
    assert len(hints) == 1
    user.is_active = True
    user.save()
    assert len(hints) == 2


def test_field_that_is_written_later(anna: User, hints: list[Hint]) -> None:
    """Counts when it is written."""
    user = again(anna)
    deactivate(user, update_fields=["first_name"])
    assert hints == []
    user.save()
    assert len(hints) == 1


def test_save_that_was_rolled_back(anna: User, hints: list[Hint]) -> None:
    """Has changed nothing; the same save, tried again, has."""
    user = again(anna)
    with transaction.atomic():
        deactivate(user)
        transaction.set_rollback(True)
    assert hints == []
    user.save()
    assert len(hints) == 1


def test_own_hash(anna: User, hints: list[Hint]) -> None:
    """A project's own method decides what is in the hash."""
    user = again(anna, Countersigned)
    rename(user)
    user.save(update_fields=["last_login"])
    assert hints == []
    user.last_name = "B"
    user.save(update_fields=["last_name"])
    assert len(hints) == 1


class TestFailures:
    """Code of the project that fails: the database is asked, and the change is made."""

    @pytest.fixture(autouse=True)
    def _first(self) -> None:
        sign_out._log_failure.cache_clear()

    def test_own_hash(
        self, anna: User, hints: list[Hint], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Of an object that `__init__` has not made. It is logged once, and not for each login."""
        user = again(anna, Prepared)
        for _ in range(2):
            rename(user)
        assert again(anna).first_name == "AA"
        assert hints == [("users", str(anna.pk))] * 2
        assert [
            record.exc_text.splitlines()[-1] for record in caplog.records if record.exc_text
        ] == ["AttributeError: 'Prepared' object has no attribute 'suffix'"]

    def test_router(
        self,
        anna: User,
        hints: list[Hint],
        override: Override,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """One that needs to know the object."""
        user = again(anna)
        user._state.db = "another"
        override(DATABASE_ROUTERS=["test_user_changes.Choosy"])
        user.save(using="default")
        assert hints == [("users", str(anna.pk))]
        assert "KeyError: 'instance'" in caplog.text

    def test_row_of_a_session(
        self, rows: None, hints: list[Hint], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Its date has no time zone."""
        row = Session(
            session_key="naive", session_data="", expire_date=timezone.now().replace(tzinfo=None)
        )
        with pytest.warns(RuntimeWarning, match="naive datetime"):
            row.save()
        row.delete()
        assert hints == [("sessions", digest("naive"))]
        assert "TypeError: can't compare offset-naive" in caplog.text


class Choosy:
    """Reads an object from its own database."""

    def db_for_read(self, model: type, **hints: Any) -> Any:
        """Give it."""
        return hints["instance"]._state.db


def test_no_query(anna: User, hints: list[Hint]) -> None:
    """Is made for it, whatever was loaded."""
    users = [again(anna), User.objects.only("first_name").get(pk=anna.pk)]
    seen: list[str] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        seen.append(sql)
        return execute(sql, *rest)

    with connections["default"].execute_wrapper(note):
        for user in users:
            rename(user)
    assert [sql.split()[0] for sql in seen] == ["UPDATE", "UPDATE"]


def test_what_an_object_keeps(anna: User) -> None:
    """The noted values of a user take little memory, as lists of users are long."""
    kept = vars(again(anna)._state)
    assert sum(sys.getsizeof(kept[name]) for name in kept if "dwebsocket" in name) < 200


def test_object_from_before_a_migration(anna: User, hints: list[Hint]) -> None:
    """An object that was pickled with one field less counts as unknown."""
    user = again(anna)
    noted = vars(user._state)[sign_out._NOTED]
    vars(user._state)[sign_out._NOTED] = noted[:-1]
    rename(user)
    assert len(hints) == 1


class TestManualMode:
    """`set_autocommit(False)`: `on_commit` raised within `save()`, and the row was lost."""

    @pytest.fixture(autouse=True)
    def _manual(self, anna: User) -> Iterator[None]:
        transaction.set_autocommit(False)
        yield
        transaction.rollback()
        transaction.set_autocommit(True)

    def test_commit(self, anna: User, hints: list[Hint]) -> None:
        """Keeps the rows, and announces the change."""
        deactivate(again(anna))
        assert hints == []
        transaction.commit()
        assert hints == [("users", str(anna.pk))]
        transaction.set_autocommit(True)
        assert not again(anna).is_active
        transaction.set_autocommit(False)

    def test_rollback(self, anna: User, hints: list[Hint]) -> None:
        """Announces nothing."""
        set_password(again(anna))
        again(anna).delete()
        transaction.rollback()
        transaction.commit()
        assert hints == []

    def test_session(self, anna: User, hints: list[Hint], override: Override) -> None:
        """A logout is a deleted row."""
        override(SESSION_ENGINE="django.contrib.sessions.backends.db")
        sign_out.listen_in_all()
        request = sign_in(anna)
        transaction.commit()
        key = request.session.session_key
        logout(request)
        assert hints == []
        transaction.commit()
        assert hints == [("sessions", digest(key))]


class Router:
    """Reads from a replica, and writes elsewhere."""

    def db_for_read(self, model: type, **_: Any) -> str:
        """Give the replica."""
        return "replica"

    def db_for_write(self, model: type, **_: Any) -> str:
        """Give the other one."""
        return "default"


def test_replica(anna: User, hints: list[Hint], override: Override) -> None:
    """What a router reads there is known where it writes."""
    connections.databases["replica"] = dict(connections["default"].settings_dict)
    override(DATABASE_ROUTERS=["test_user_changes.Router"])
    try:
        rename(again(anna))
        assert hints == []
        deactivate(again(anna))
        assert len(hints) == 1
    finally:
        connections["replica"].close()
        del connections["replica"], connections.databases["replica"]


def sign_in(user: User) -> Any:
    """Log in as by a form."""
    from django.conf import settings

    request: Any = RequestFactory().get("/")
    request.session = import_module(settings.SESSION_ENGINE).SessionStore()
    request.user = user
    login(request, user, backend=BACKEND)
    request.session.save()
    return request


@pytest.fixture
def rows(override: Override) -> None:
    """Keep sessions as rows."""
    override(SESSION_ENGINE="django.contrib.sessions.backends.db")
    sign_out.listen_in_all()


@pytest.mark.usefixtures("rows")
class TestSessions:
    """Rows of sessions."""

    def test_logout(self, anna: User, hints: list[Hint]) -> None:
        """Is announced once, without the session's key."""
        request = sign_in(anna)
        assert hints == []
        key = request.session.session_key
        logout(request)
        assert hints == [("sessions", digest(key))]
        assert key not in str(hints)

    def test_anonymous_session(self, anna: User, hints: list[Hint]) -> None:
        """Gets another key at a login: nobody was signed in by the old one."""
        request: Any = RequestFactory().get("/")
        request.session = import_module("django.contrib.sessions.backends.db").SessionStore()
        request.session["basket"] = 1
        request.session.save()
        request.COOKIES["sessionid"] = request.session.session_key
        login(request, anna, backend=BACKEND)
        assert hints == []


def of_statements() -> Any:
    """Note the first words of statements, and whether somebody listens to the ends of sessions."""
    seen: list[tuple[str, bool]] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        result = execute(sql, *rest)
        seen.append((sql.split()[0], post_delete.has_listeners(Session)))
        return result

    return seen, note


CLEARS: dict[str, Callable[[], object]] = {
    "command": lambda: management.call_command("clearsessions"),
    "a class of its own": lambda: type("Own", (db.SessionStore,), {}).clear_expired(),
}
if hasattr(db.SessionStore, "aclear_expired"):
    CLEARS["async"] = lambda: async_to_sync(db.SessionStore.aclear_expired)()


@pytest.mark.usefixtures("rows")
class TestClearing:
    """Expired sessions, of which nobody has to hear."""

    @pytest.mark.parametrize("clear", CLEARS)
    def test_reads_no_rows(self, anna: User, hints: list[Hint], clear: str) -> None:
        """Django's fast delete takes no memory for them. Other threads are heard meanwhile."""
        key = sign_in(anna).session.session_key
        Session.objects.filter(pk=key).update(expire_date=timezone.now())
        seen, note = of_statements()
        with connections["default"].execute_wrapper(note):
            CLEARS[clear]()
        assert seen == [("BEGIN", True), ("DELETE", True)]
        assert not Session.objects.filter(pk=key).exists()
        logout(sign_in(anna))
        assert len(hints) == 1

    def test_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Listens again."""
        monkeypatch.setattr(db.SessionStore, "get_model_class", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            management.call_command("clearsessions")
        assert post_delete.has_listeners(Session)

    @pytest.mark.parametrize("name", ["clear_expired", "aclear_expired"])
    def test_files(
        self,
        anna: User,
        hints: list[Hint],
        override: Override,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        name: str,
    ) -> None:
        """The store that deletes each by itself announces none; a session that ends is one."""
        monkeypatch.setattr(file.SessionStore, "_storage_path", str(tmp_path), raising=False)
        override(SESSION_ENGINE="django.contrib.sessions.backends.file")
        sign_out.listen_in_all()
        session = sign_in(anna).session
        session.set_expiry(-1)
        session.save()
        clear = getattr(file.SessionStore, name, file.SessionStore.clear_expired)
        async_to_sync(clear)() if inspect.iscoroutinefunction(clear) else clear()
        assert not list(tmp_path.iterdir())
        assert hints == []
        sign_in(anna).session.flush()
        assert len(hints) == 1


FAMILY = """
from django.contrib.auth.models import AbstractUser
from django.db import models

class Being(models.Model):
    name = models.TextField()

class Person(Being, AbstractUser):
    pass

class Formal(Person):
    class Meta:
        proxy = True

class Account(models.Model):
    number = models.AutoField(primary_key=True)
    is_locked = models.BooleanField(default=False)

class Member(Person, Account):
    pass

class Registered(Member):
    class Meta:
        proxy = True

class Employee(Member):
    badge = models.TextField(primary_key=True)
    member = models.OneToOneField(Member, models.CASCADE, parent_link=True)

class Stranger(Being):
    pass
"""
RELATED = """
import sys
import django
from django.conf import settings
settings.configure(
    AUTH_USER_MODEL=sys.argv[1],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "family", "dwebsocket"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
)
django.setup()
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from dwebsocket.users import announcements
from family.models import Account, Being, Employee, Formal, Member, Person, Registered, Stranger
call_command("migrate", run_syncdb=True, verbosity=0)
hints = []
announcements.announce = hints.append

def told(act):
    hints.clear()
    act()
    return sorted({name for _, name in hints})

def deactivate(user):
    user.is_active = False
    user.save()

for name in "no member", "another":
    Person.objects.create(username=name)
for _ in range(3):
    Account.objects.create()
Member.objects.create(username="ada")
Employee.objects.create(username="bob", badge="B7")
ada, bob = (Member.objects.get(username=name) for name in ("ada", "bob"))
for model in Being, Person, Formal, Member, Registered:
    assert told(model.objects.get(pk=ada.pk).save) == []
for model in Person, Formal, Member, Registered:
    assert told(lambda: deactivate(model.objects.get(pk=ada.pk))) == [str(ada.pk)], model
    Person.objects.update(is_active=True)
being = Being.objects.get(pk=ada.pk)
being.name = "A"
with CaptureQueriesContext(connection) as queries:
    assert told(being.save) == [str(ada.pk)]
assert [query["sql"].split()[0] for query in queries] == ["UPDATE"]
# Its key is that of another user.
account = Account.objects.get(pk=ada.number)
assert account.pk == bob.pk
account.is_locked = True
assert told(account.save) == []
assert told(lambda: deactivate(Employee.objects.get(pk="B7"))) == [str(bob.pk)]
assert told(lambda: Person.objects.create(username="new")) == []
stranger = Stranger.objects.create(name="x")
stranger.name = "y"
assert told(stranger.save) == []
assert told(Person.objects.get(pk=ada.pk).delete) == [str(ada.pk)]
assert told(Employee.objects.get(pk="B7").delete) == [str(bob.pk)]
"""


@pytest.mark.parametrize("model", ["Member", "Registered"])
def test_models_with_parents(tmp_path: Path, model: str) -> None:
    """A user that is saved as what it is a kind of; a kind of user that has a key of its own."""
    family = tmp_path / "family"
    family.mkdir()
    (family / "__init__.py").touch()
    (family / "models.py").write_text(FAMILY)
    done = subprocess.run(
        [sys.executable, "-c", RELATED, f"family.{model}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def archive(anna: User, tmp_path: Path) -> Iterator[str]:
    """Another database that has the same users."""
    default = connections["default"]
    name = str(tmp_path / "archive.sqlite3")
    shutil.copy(default.settings_dict["NAME"], name)
    connections.databases["archive"] = {**default.settings_dict, "NAME": name}
    yield "archive"
    connections["archive"].close()
    del connections["archive"], connections.databases["archive"]


def test_copy_in_another_database(anna: User, archive: str, hints: list[Hint]) -> None:
    """A new row there is nobody who was signed in."""
    User.objects.using(archive).all().delete()
    hints.clear()
    anna.save(using=archive)
    assert hints == []

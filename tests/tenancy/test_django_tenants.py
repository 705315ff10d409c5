"""Two tenants of django-tenants on PostgreSQL, the same primary keys in each."""

from __future__ import annotations

import functools
import http.client
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from support import postgres
from support.installed import django_tenants
from support.pages import block
from support.raw_peer import RawPeer, Response
from support.server import ASGI, GUNICORN_GEVENT, GUNICORN_GTHREAD, TESTS, Kind, Server
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.needs("django-tenants"), pytest.mark.needs("postgresql")]

FOLDER = Path(__file__).resolve().parent
VIEWS = ["sync", "async", "handler", "async-handler", "consumer", "async-consumer"]
UVICORN = next(kind for kind in ASGI if str(kind).startswith("uvicorn"))
_TENANTS = """
from django.contrib.auth.models import User
from django_tenants.utils import tenant_context
from rented.landlord.models import Domain, Tenant
from rented.notes.models import Note
Tenant.objects.create(schema_name="public")
for name in ("acme", "globex"):
    tenant = Tenant.objects.create(schema_name=name)
    Domain.objects.create(domain=f"{name}.example.com", tenant=tenant, is_primary=True)
    with tenant_context(tenant):
        Note.objects.create(text=f"of {name}")
        User.objects.create_superuser("anna", "", "pw")
"""


@pytest.fixture(scope="module")
def database() -> Iterator[Path]:
    """A PostgreSQL server; the folder of its socket."""
    with postgres.postgres() as folder:
        yield folder


class Site(Server):
    """The site on one kind of server."""

    def __init__(self, kind: Kind, folder: Path, **settings: object) -> None:
        options = ("--workers", "2") if kind is GUNICORN_GTHREAD else ()
        super().__init__(
            kind,
            options=options,
            settings=settings,
            cwd=FOLDER,
            module="rented",
            env={"RENTED_POSTGRES": str(folder)},
        )
        self.env["PYTHONPATH"] += os.pathsep.join(["", str(TESTS), str(django_tenants())])

    def manage(self, *arguments: str) -> str:
        """Run a command of the site in a process of its own, and give what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "django", *arguments],
            cwd=self.cwd,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, program: str) -> str:
        """Run a program in the shell of the site."""
        return self.manage("shell", "--verbosity", "0", "--command", program)


@pytest.fixture(scope="module")
def _tenants(database: Path) -> None:
    """Their schemas, users and notes."""
    site = Site(GUNICORN_GTHREAD, database)
    site.manage("migrate_schemas", "--verbosity", "0")
    site.run(_TENANTS)


@pytest.fixture(scope="module", params=[GUNICORN_GTHREAD, UVICORN], ids=str)
def site(request: pytest.FixtureRequest, database: Path, _tenants: None) -> Iterator[Site]:
    """The site, which runs."""
    with Site(request.param, database) as running:
        assert isinstance(running, Site)
        yield running


class Person:
    """The user `anna` of one tenant, in a browser."""

    def __init__(self, site: Site, tenant: str) -> None:
        self.site = site
        self.headers = {"Host": f"{tenant}.example.com"}
        self.cookies: dict[str, str] = {}
        self.key = self.get("/log-in/anna/").body.decode()

    def get(self, path: str) -> Response:
        """Get a page."""
        return self._ask("GET", path, None)

    def post(self, path: str, **fields: str) -> Response:
        """Post a form."""
        return self._ask("POST", path, urlencode(fields | {"csrfmiddlewaretoken": self.token}))

    @property
    def token(self) -> str:
        """That of the cookie against forged requests."""
        return self.cookies["csrftoken"]

    def _ask(self, method: str, path: str, body: str | None) -> Response:
        host, port = self.site.address  # type: ignore[misc]
        connection = http.client.HTTPConnection(host, port, timeout=30)
        headers = {"Connection": "close", **self.headers}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        found = Response(answer.status, answer.getheaders(), answer.read())
        connection.close()
        for line in found.header_all("Set-Cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        self.headers["Cookie"] = "; ".join(f"{n}={v}" for n, v in self.cookies.items())
        return found

    def websocket(self, path: str = "/ws/waits/") -> RawPeer:
        """Open a WebSocket."""
        return RawPeer.open(self.site, path, headers={**self.headers})

    def has_noted(self, text: str) -> bool:
        """Whether it is a note of the tenant, as a page shows them."""
        return text in self.get("/notes/").body.decode().split(",")


@pytest.fixture
def acme(site: Site) -> Person:
    """The user of one tenant."""
    return Person(site, "acme")


@pytest.fixture
def globex(site: Site) -> Person:
    """The user of the other one, with the same primary key."""
    return Person(site, "globex")


def say(peer: RawPeer, message: str) -> str:
    """Send a message and give the answer."""
    peer.send_text(message)
    return peer.read_message().decode()


@pytest.mark.parametrize("view", VIEWS)
def test_code_of_a_connection_works_in_the_schema_of_its_tenant(
    acme: Person, globex: Person, view: str
) -> None:
    """At each message, with two tenants in turn on the same threads, and at the end."""
    work_in_their_schemas(acme, globex, view)


@pytest.mark.usefixtures("_tenants")
def test_green_threads_work_in_the_schema_of_their_tenant(database: Path) -> None:
    """The same on gevent, whose green threads have connections to the database of their own."""
    with Site(GUNICORN_GEVENT, database) as site:
        acme, globex = Person(site, "acme"), Person(site, "globex")
        for view in ("sync", "async", "handler", "async-handler"):
            work_in_their_schemas(acme, globex, view)


def work_in_their_schemas(acme: Person, globex: Person, view: str) -> None:
    """Talk to a view of both tenants at the same time, and see what it keeps at its end."""
    said = {name: secrets.token_hex(8) for name in ("acme", "globex")}
    with acme.websocket(f"/ws/{view}/") as one, globex.websocket(f"/ws/{view}/") as two:
        for _ in range(3):
            assert say(one, said["acme"]).split(",")[0] == "of acme"
            assert say(two, said["globex"]).split(",")[0] == "of globex"
    for person, name in ((acme, "acme"), (globex, "globex")):
        noted = functools.partial(person.has_noted, said[name])
        eventually(noted, what=f"the last message is a note of {name}")
    assert not acme.has_noted(said["globex"])
    assert not globex.has_noted(said["acme"])


def test_functions_beside_a_view_work_in_the_schema(acme: Person, globex: Person) -> None:
    """`start` and `every`."""
    with acme.websocket("/ws/sync/") as one, globex.websocket("/ws/sync/") as two:
        for message in ("beside", "every"):
            assert say(one, message).split(",")[0] == "of acme"
            assert say(two, message).split(",")[0] == "of globex"
        for _ in range(3):
            assert one.read_message().split(b",")[0] == b"of acme"
            assert two.read_message().split(b",")[0] == b"of globex"


def test_a_coroutine_sees_the_tenant_of_its_connection(acme: Person, globex: Person) -> None:
    """`connection.schema_name`, and the ORM in tasks that `asyncio.gather` makes."""
    with acme.websocket("/ws/async/") as one, globex.websocket("/ws/async/") as two:
        assert say(one, "schema") == "acme"
        assert say(two, "schema") == "globex"
        assert say(one, "schema") == "acme"
        assert say(one, "together").split(",")[0] == "of acme"
        assert say(two, "together").split(",")[0] == "of globex"


def test_a_message_reaches_the_user_of_the_tenant_alone(
    site: Site, acme: Person, globex: Person
) -> None:
    """From a page, and from a command that has entered the tenant's schema or names it."""
    assert acme.key == globex.key
    with acme.websocket() as one, globex.websocket() as two:
        acme.get("/send/from-page/")
        site.run(
            "import dwebsocket\n"
            "from django_tenants.utils import schema_context\n"
            f"with schema_context('globex'): dwebsocket.user({acme.key}).send('from command')\n"
            f"dwebsocket.user({acme.key}, realm='acme').send('by name')\n"
        )
        assert one.read_message() == b"from-page"
        assert one.read_message() == b"by name"
        assert two.read_message() == b"from command"


def test_a_task_reaches_the_user_of_a_tenant(site: Site, acme: Person, globex: Person) -> None:
    """As docs/tenants.md has it."""
    code = block("docs/tenants.md", "def tell(tenant, user, text):")
    with acme.websocket() as one, globex.websocket() as two:
        site.run(
            f"{code}\nfrom rented.landlord.models import Tenant\n"
            f"tell(Tenant.objects.get(schema_name='acme'), {acme.key}, 'from a task')\n"
            f"close(Tenant.objects.get(schema_name='globex'), {acme.key})\n"
        )
        assert one.read_message() == b"from a task"
        assert two.read_to_eof().code == 4401


def test_signing_out_is_the_matter_of_one_tenant(acme: Person, globex: Person) -> None:
    """By logging out, and by another password."""
    again = Person(acme.site, "acme")
    with acme.websocket() as one, again.websocket() as other, globex.websocket() as two:
        acme.get("/log-out/")
        assert one.read_to_eof().code == 4401
        again.get("/change/")
        assert other.read_to_eof().code == 4401
        globex.get("/send/still-here/")
        assert two.read_message() == b"still-here"


@pytest.mark.usefixtures("_tenants")
def test_the_recheck_asks_in_the_schema_of_each_user(database: Path) -> None:
    """It signs out those who are, and nobody else."""
    with Site(UVICORN, database, WEBSOCKET_AUTH_RECHECK=1) as site:
        acme, globex = Person(site, "acme"), Person(site, "globex")
        with acme.websocket() as one, globex.websocket() as two:
            # Nothing tells of it but the recheck.
            site.run(
                "from django.contrib.sessions.models import Session\n"
                "from django_tenants.utils import schema_context\n"
                f"key = {acme.cookies['sessionid']!r}\n"
                "with schema_context('acme'):\n"
                "    Session.objects.filter(pk=key)._raw_delete('default')\n"
            )
            assert one.read_to_eof().code == 4401
            globex.get("/send/still-here/")
            assert two.read_message() == b"still-here"


def test_the_page_in_the_admin_is_of_one_tenant(acme: Person, globex: Person) -> None:
    """It shows the tenant's WebSockets and closes those of its user."""
    with acme.websocket() as one, globex.websocket() as two:

        def rows() -> int:
            page = acme.get("/admin/websockets/").body.decode()
            table = re.search(r'<table id="ws-table">.*?</table>', page, re.DOTALL)
            assert table is not None, page
            return len(re.findall("<tr>", table[0].partition("<tbody>")[2]))

        eventually(lambda: rows() == 1, what="the page shows one")
        acme.post("/admin/websockets/close/", user=acme.key)
        assert one.read_to_eof().code == 1008
        globex.get("/send/still-here/")
        assert two.read_message() == b"still-here"

"""
Set-ups that are wrong on purpose: `websocket_doctor` finds each, says the fix, and exits with 1.

Servers and proxies are real; the doctor is the command as a user starts it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.proxy import APPS, Proxy, doctor
from support.server import GUNICORN_GTHREAD, UVICORN, Kind, Server, free_port
from support.users import sign_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Own = Callable[..., Server]

pytestmark = pytest.mark.extended("starts a server for each thing that can be wrong")

SERVER = "server { listen {listen}; location / { proxy_pass http://{upstream}; %s } }"
UPGRADE = "proxy_set_header Upgrade $http_upgrade;"
CONNECTION = "proxy_set_header Connection upgrade;"
VERSION = "proxy_http_version 1.1;"
HOST = "proxy_set_header Host $http_host;"


def examine(*arguments: str, **settings: object) -> tuple[int, dict[str, dict]]:
    """Run the doctor; give its exit status and its findings by id."""
    done = doctor("--json", *arguments, settings=settings)
    document = json.loads(done.stdout)
    findings = {finding["id"]: finding for finding in document["findings"]}
    assert document["ok"] == (done.returncode == 0), done.stderr
    for finding in findings.values():
        assert finding["what"], finding
        assert bool(finding["fix"]) == (finding["level"] != "fine"), finding
    return done.returncode, findings


def assert_finds(name: str, *words: str, level: str = "error") -> Callable[..., None]:
    """Check a result of `examine`: this finding is there, and its fix has these words."""

    def check(result: tuple[int, dict[str, dict]]) -> None:
        status, findings = result
        assert name in findings, [f for f in findings.values() if f["level"] != "fine"]
        assert findings[name]["level"] == level
        for word in words:
            assert word in findings[name]["fix"], findings[name]
        if level == "error":
            assert status == 1

    return check


@pytest.fixture
def behind_nginx(own_server: Own) -> Iterator[Callable[..., Proxy]]:
    """Start gunicorn with an nginx in front: `behind_nginx(directives, settings…)`."""
    with contextlib.ExitStack() as stack:

        def start(
            *directives: str,
            snippet: str | None = None,
            server: Kind = GUNICORN_GTHREAD,
            **settings: object,
        ) -> Proxy:
            # By default gunicorn believes the scheme that a proxy on the same machine sends.
            options = ("--forwarded-allow-ips", "192.0.2.1") if server is GUNICORN_GTHREAD else ()
            running = own_server(server, options=options, settings=settings)
            snippet = snippet or SERVER % " ".join(directives)
            return stack.enter_context(Proxy("nginx", running, snippet=snippet))

        yield start


@pytest.mark.needs("nginx")
class TestBehindNginx:
    """Mistakes in the configuration of a proxy."""

    def test_nothing_is_wrong(self, own_server: Own) -> None:
        """With the doctor's own configuration it finds nothing, and says what runs there."""
        # The default, which the test project has switched off.
        settings = {"WEBSOCKET_PING_INTERVAL": 25}
        with Proxy("nginx", own_server(GUNICORN_GTHREAD, settings=settings)) as proxy:
            status, findings = examine("--url", proxy.url("/echo/"), **settings)
        assert status == 0, findings
        assert {finding["level"] for finding in findings.values()} == {"fine"}
        assert "worker class gthread" in findings["server"]["what"]
        assert "gunicorn/27" in findings["server"]["what"]
        assert {"handshake", "ping", "files", "origin.foreign"} <= set(findings)

    def test_plain_proxy_pass(self, behind_nginx: Callable[..., Proxy]) -> None:
        """nginx without a directive for upgrades drops the header."""
        proxy = behind_nginx(HOST)
        assert_finds("proxy.upgrade", "proxy_set_header Upgrade $http_upgrade", "proxy_http_ver")(
            examine("--url", proxy.url("/echo/"))
        )

    def test_no_connection_header(self, behind_nginx: Callable[..., Proxy]) -> None:
        """Upgrade alone is not enough."""
        proxy = behind_nginx(HOST, VERSION, UPGRADE)
        assert_finds("proxy.connection", "proxy_set_header Connection")(
            examine("--url", proxy.url("/echo/"))
        )

    def test_http_1_0(self, behind_nginx: Callable[..., Proxy]) -> None:
        """nginx speaks HTTP/1.0 unless configured otherwise."""
        proxy = behind_nginx(HOST, "proxy_http_version 1.0;", UPGRADE, CONNECTION)
        assert_finds("proxy.http10", "proxy_http_version 1.1")(
            examine("--url", proxy.url("/echo/"))
        )

    def test_all_is_lost(self, behind_nginx: Callable[..., Proxy]) -> None:
        """One run names all that a plain `proxy_pass` loses."""
        proxy = behind_nginx("proxy_http_version 1.0;")
        result = examine("--url", proxy.url("/echo/"))
        for name in ("proxy.host", "proxy.upgrade", "proxy.http10"):
            assert_finds(name)(result)

    @pytest.mark.parametrize("server", [GUNICORN_GTHREAD, UVICORN], ids=lambda kind: kind.name)
    @pytest.mark.parametrize(
        ("hosts", "names"),
        [(["127.0.0.1"], ["proxy.host"]), (["chat.example"], ["proxy.host", "hosts.missing"])],
    )
    def test_all_is_lost_and_the_host_is_refused(
        self,
        behind_nginx: Callable[..., Proxy],
        server: Kind,
        hosts: list[str],
        names: list[str],
    ) -> None:
        """Middleware refuses the Host with 400, and the rest is named all the same."""
        settings = {
            "ALLOWED_HOSTS": hosts,
            "MIDDLEWARE": ["django.middleware.common.CommonMiddleware"],
            "WEBSOCKET_ALLOWED_ORIGINS": ["https://friend.example"],
        }
        proxy = behind_nginx(
            "proxy_set_header Host the_upstream; proxy_http_version 1.0;",
            "proxy_set_header X-Forwarded-For $http_x_forwarded_for;", server=server, **settings,
        )  # fmt: skip
        result = examine(
            "--url", proxy.url("/echo/"), "--silence", "1",
            "--origin", "https://app.example", "--origin", "https://friend.example", **settings,
        )  # fmt: skip
        for name in (*names, "proxy.upgrade", "proxy.http10", "origin.refused"):
            assert_finds(name)(result)
        assert "'the_upstream'" in result[1]["proxy.host"]["what"]
        assert {"origin.allowed", "origin.foreign"} <= set(result[1])
        assert_finds("silence.unknown", "again", level="warning")(result)
        assert ("hosts.missing" in result[1]) == ("hosts.missing" in names)
        # By default uvicorn believes the address that a proxy on its own machine sends.
        assert ("forwarded.believed" in result[1]) == (server is UVICORN)
        assert "None" not in str(result[1].get("forwarded.believed", ""))

    def test_host_is_lost(self, behind_nginx: Callable[..., Proxy]) -> None:
        """Without the Host of the browser every Origin is foreign."""
        proxy = behind_nginx(VERSION, UPGRADE, CONNECTION)
        result = examine("--url", proxy.url("/echo/"))
        assert_finds("proxy.host", "proxy_set_header Host $http_host")(result)
        assert "origin.own" not in result[1]

    def test_silence_is_cut(self, behind_nginx: Callable[..., Proxy]) -> None:
        """A timeout below the ping interval, seen by waiting for it."""
        proxy = behind_nginx(HOST, VERSION, UPGRADE, CONNECTION, "proxy_read_timeout 1s;")
        assert_finds("silence.cut", "WEBSOCKET_PING_INTERVAL", "proxy_read_timeout")(
            examine("--url", proxy.url("/echo/"), "--silence", "10")
        )

    def test_upstream_is_down(self) -> None:
        """502 is the proxy's, not the site's."""
        with Proxy("nginx", f"127.0.0.1:{free_port()}", snippet=SERVER % HOST) as proxy:
            assert_finds("proxy.upstream", "Is the server running")(
                examine("--url", proxy.url("/echo/"))
            )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, and its key in one folder."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return folder


class TestTls:
    """nginx ends TLS."""

    @staticmethod
    def snippet(folder: Path, *more: str) -> str:
        """The configuration."""
        lines = [HOST, VERSION, UPGRADE, CONNECTION, *more]
        tls = f"ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;"
        whole = SERVER % " ".join(lines)
        return whole.replace("{listen};", "{listen} ssl; " + tls)

    def test_scheme_is_lost(self, behind_nginx: Callable[..., Proxy], certificate: Path) -> None:
        """Without X-Forwarded-Proto and the setting, the site's own pages are foreign."""
        trust = ("--cafile", str(certificate / "cert.pem"))
        proxy = behind_nginx(snippet=self.snippet(certificate))
        result = examine("--url", proxy.url("/echo/", "wss"), *trust)
        assert_finds("proxy.scheme", "X-Forwarded-Proto", "SECURE_PROXY_SSL_HEADER")(result)
        assert "origin.own" not in result[1]

    def test_setting_is_missing(
        self, behind_nginx: Callable[..., Proxy], certificate: Path
    ) -> None:
        """The header arrives, but no setting lets Django believe it."""
        forwarded = "proxy_set_header X-Forwarded-Proto $scheme;"
        proxy = behind_nginx(snippet=self.snippet(certificate, forwarded))
        status, findings = examine(
            "--url", proxy.url("/echo/", "wss"), "--cafile", str(certificate / "cert.pem")
        )
        assert status == 1
        assert "arrives as 'https'" in findings["proxy.scheme"]["what"]
        assert findings["proxy.scheme"]["fix"].startswith("Set SECURE_PROXY_SSL_HEADER")

    def test_site_redirects_to_https(
        self, behind_nginx: Callable[..., Proxy], certificate: Path
    ) -> None:
        """SECURE_SSL_REDIRECT hides what else is lost, and is no reason to try another address."""
        settings = {
            "SECURE_SSL_REDIRECT": True,
            "INSTALLED_APPS": APPS,
            "MIDDLEWARE": ["django.middleware.security.SecurityMiddleware"],
        }
        snippet = self.snippet(certificate, "proxy_set_header X-Forwarded-Proto http;")
        proxy = behind_nginx(snippet=snippet.replace(UPGRADE, ""), **settings)
        result = examine(
            "--url", proxy.url("/echo/", "wss"), "--cafile", str(certificate / "cert.pem"),
            **settings,
        )  # fmt: skip
        assert_finds("proxy.scheme", "SECURE_PROXY_SSL_HEADER")(result)
        assert_finds("proxy.upgrade")(result)
        assert "handshake.redirect" not in result[1]

    def test_site_wants_https(self, own_server: Own) -> None:
        """ws:// where the site redirects to https://."""
        settings = {
            "SECURE_SSL_REDIRECT": True,
            "INSTALLED_APPS": APPS,
            "MIDDLEWARE": ["django.middleware.security.SecurityMiddleware"],
        }
        server = own_server(GUNICORN_GTHREAD, settings=settings)
        result = examine("--url", server.url("/echo/"), **settings)
        assert_finds("handshake.redirect", "wss://")(result)
        assert "origin.own" not in result[1]

    def test_all_is_well(self, behind_nginx: Callable[..., Proxy], certificate: Path) -> None:
        """With both there is nothing to say."""
        believe = {"SECURE_PROXY_SSL_HEADER": ["HTTP_X_FORWARDED_PROTO", "https"]}
        forwarded = "proxy_set_header X-Forwarded-Proto $scheme;"
        proxy = behind_nginx(snippet=self.snippet(certificate, forwarded), **believe)
        status, findings = examine(
            "--url", proxy.url("/echo/", "wss"), "--cafile", str(certificate / "cert.pem"),
            **believe,
        )  # fmt: skip
        assert status == 0, findings

    def test_certificate_is_not_trusted(
        self, behind_nginx: Callable[..., Proxy], certificate: Path
    ) -> None:
        """As a browser would see it."""
        proxy = behind_nginx(snippet=self.snippet(certificate))
        assert_finds("tls.certificate", "certificate")(examine("--url", proxy.url("/echo/", "wss")))

    def test_no_tls_there(self, server: Server) -> None:
        """wss:// to a port that speaks plain HTTP."""
        assert_finds("tls.none", "ws://")(examine("--url", server.url("/echo/", "wss")))


class TestServers:
    """Findings about the server at the address."""

    def test_granian_in_wsgi_mode(self, own_server: Own) -> None:
        """A server that keeps its sockets: its name, and what to use instead."""
        command = ("{python}", "-m", "granian", "--interface", "wsgi", "--port", "{port}")
        kind = Kind("granian", "other", (*command, "--no-ws", "project.wsgi:application"))
        server = own_server(kind)
        status, findings = examine("--url", server.url("/echo/"))
        assert status == 1
        assert "Granian does not give" in findings["server.unsupported"]["what"]

    def test_asgi_server_without_websockets(self, own_server: Own) -> None:
        """The server is right, and a package is missing: no other server is advised."""
        command = ("{python}", "-m", "uvicorn", "--port", "{port}", "--log-level", "warning")
        kind = Kind("uvicorn", "asgi", (*command, "--ws", "none", "project.asgi:application"))
        found = examine("--url", own_server(kind).url("/echo/"))
        assert_finds("server.plain_http", "pip install websockets")(found)
        assert "server.unsupported" not in found[1]

    @pytest.mark.parametrize(
        "options",
        [
            ("--worker-class", "project.unpatched.Worker"),
            ("--worker-class", "gevent", "--preload"),
        ],
        ids=["lost", "late"],
    )
    def test_gevent_without_monkey_patching(
        self, options: tuple[str, ...], own_server: Own
    ) -> None:
        """gunicorn's gevent worker whose patching was lost, or came after the import of Django."""
        server = own_server(Kind("gevent-unpatched", "gunicorn", (*options, "--workers", "1")))
        assert_finds("server.unpatched", "monkey.patch_all()")(
            examine("--url", server.url("/echo/"))
        )

    def test_drain_longer_than_the_server_waits(self, own_server: Own) -> None:
        """The site itself knows what its arbiter gives it."""
        server = own_server(
            GUNICORN_GTHREAD,
            options=("--graceful-timeout", "5"),
            settings={"WEBSOCKET_DRAIN": 20},
        )
        assert_finds("drain.long", "Set WEBSOCKET_DRAIN to 3.5 or less")(
            examine("--url", server.url("/echo/"), WEBSOCKET_DRAIN=20)
        )

    def test_more_connections_than_descriptors(self, own_server: Own) -> None:
        """Beyond the limit not even a page can be served."""
        settings = {"WEBSOCKET_MAX_CONNECTIONS": 10_000_000}
        server = own_server(GUNICORN_GTHREAD, settings=settings)
        assert_finds("files", "ulimit -n 10001000", "LimitNOFILE", level="warning")(
            examine("--url", server.url("/echo/"))
        )

    def test_nobody_listens(self) -> None:
        """No server at the address: the first cause to rule out."""
        assert_finds("unreachable", "Is the server running")(
            examine("--url", f"ws://127.0.0.1:{free_port()}/echo/")
        )

    def test_another_secret_key(self, server: Server) -> None:
        """No report for strangers, but the handshake is validated all the same."""
        status, findings = examine("--url", server.url("/echo/"), SECRET_KEY="another")
        assert (status, findings["report.none"]["level"]) == (0, "warning")
        assert "server" not in findings

    def test_a_process_that_leaves(self, own_server: Own) -> None:
        """503 while it drains."""
        server = own_server(GUNICORN_GTHREAD)
        server.get("/drain/")
        status, findings = examine("--url", server.url("/echo/"))
        assert (status, findings["server.leaving"]["level"]) == (1, "warning")


class TestOriginsAndHosts:
    """The origins and hosts that may connect."""

    def test_foreign_origin(self, server: Server) -> None:
        """A page that should be allowed and is not."""
        assert_finds("origin.refused", 'Add "https://app.example" to WEBSOCKET_ALLOWED_ORIGINS')(
            examine("--url", server.url("/echo/"), "--origin", "https://app.example")
        )

    def test_allowed_origin(self, server: Server) -> None:
        """A page that should be allowed and is."""
        status, findings = examine(
            "--url", server.url("/echo/"), "--origin", "https://friend.example"
        )
        assert (status, findings["origin.allowed"]["level"]) == (0, "fine")

    def test_every_origin(self, own_server: Own) -> None:
        """Where the settings allow every origin, it is a warning."""
        everybody = {"WEBSOCKET_ALLOWED_ORIGINS": ["*"]}
        server = own_server(GUNICORN_GTHREAD, settings=everybody)
        result = examine("--url", server.url("/echo/"), **everybody)
        assert_finds("origin.everybody", 'Remove "*"', level="warning")(result)
        assert_finds("origins.all", level="warning")(result)
        assert result[0] == 0

    def test_every_origin_against_the_settings(self, own_server: Own) -> None:
        """Where the settings do not allow every origin, it is an error."""
        server = own_server(GUNICORN_GTHREAD, settings={"WEBSOCKET_ALLOWED_ORIGINS": ["*"]})
        assert_finds("origin.everybody")(examine("--url", server.url("/echo/")))

    def test_host_that_is_not_allowed(self, own_server: Own) -> None:
        """400 from Django before any view."""
        hosts = {"ALLOWED_HOSTS": ["elsewhere.example", "localhost"]}
        server = own_server(GUNICORN_GTHREAD, settings=hosts)
        assert_finds("hosts.missing", "Add '127.0.0.1' to ALLOWED_HOSTS")(
            examine("--url", server.url("/echo/"), **hosts)
        )


class TestAddresses:
    """Addresses that take no WebSockets."""

    @pytest.mark.parametrize(
        ("path", "name"),
        [("/nowhere/", "handshake.missing"), ("/plain/", "handshake"),
         ("/over/login-required/", "handshake.redirect")],
    )  # fmt: skip
    def test_each(self, server: Server, path: str, name: str) -> None:
        """A status that is not 101 is explained."""
        assert_finds(name)(examine("--url", server.url(path)))

    def test_cookie(self, own_server: Own) -> None:
        """A header opens what is behind the log-in."""
        server = own_server(GUNICORN_GTHREAD)
        status, findings = examine(
            "--url", server.url("/over/login-required/"),
            "--header", f"Cookie: {sign_in(server, 'ada')['Cookie']}",
        )  # fmt: skip
        assert status == 0, findings


class TestCommand:
    """The command itself."""

    def test_text(self, server: Server) -> None:
        """For people: a line each, the fix below."""
        done = doctor("--url", server.url("/nowhere/"))
        assert done.returncode == 1
        assert "error [handshake.missing] The handshake gets 404" in done.stdout
        assert "\n    Give the address of a view that takes WebSockets." in done.stdout
        assert "CommandError: 1 of" in done.stderr

    def test_without_an_address(self) -> None:
        """The settings alone."""
        status, findings = examine(WEBSOCKET_PING_INTERVAL=90)
        assert status == 1
        assert findings["ping.slow"]["level"] == "error"

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (("--url", "localhost:8000"), "'localhost:8000' is no address"),
            (("--url", "ftp://localhost/"), "write ws://host/path"),
            (("--url", "ws://localhost/", "--header", "x"), "'x' is no header"),
        ],
    )
    def test_bad_arguments(self, arguments: tuple[str, ...], says: str) -> None:
        """The error names what is wrong with them."""
        done = doctor(*arguments)
        assert done.returncode == 1
        assert says in done.stderr
        assert "Traceback" not in done.stderr

    def test_is_there_only_when_installed(self) -> None:
        """It comes with "dwebsocket" in INSTALLED_APPS."""
        done = doctor(settings={"INSTALLED_APPS": ["django.contrib.contenttypes"]})
        assert done.returncode == 1
        assert "Unknown command" in done.stderr

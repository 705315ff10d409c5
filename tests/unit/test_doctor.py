"""The doctor's knowledge, finding by finding, without a server."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import resource
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from django.core import signing
from django.core.management import CommandError, call_command
from visit import handshake

from dwebsocket import conf, group_statistics
from dwebsocket.conf import checks
from dwebsocket.management.commands import websocket_doctor
from dwebsocket.operations.doctor import (
    Level,
    live,
    local,
    machine,
    process,
    proxy_configs,
    site_question,
    site_report,
)
from dwebsocket.telemetry.records import EVENTS
from support.hostile import Hostile, accepting
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dwebsocket.operations.doctor import Finding

    Override = Callable[..., None]


NOW = 1_800_000_000.0


def by_id(findings: Iterator[Finding]) -> dict[str, Finding]:
    """Findings by their names; each has something to say, and a fix when it is none."""
    found = {finding.id: finding for finding in findings}
    for finding in found.values():
        assert finding.what, finding
        assert bool(finding.fix) == (finding.level is not Level.FINE), finding
    return found


class TestLocal:
    """Settings that do not fit each other."""

    @pytest.fixture(autouse=True)
    def no_servers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing runs here."""
        monkeypatch.setattr(process, "servers", lambda: iter(()))

    def test_defaults_are_fine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing but good news, in a project that has the app."""
        monkeypatch.setattr(checks.apps, "is_installed", lambda name: name == "dwebsocket")
        findings = by_id(local.examine(60))
        assert {finding.level for finding in findings.values()} <= {Level.FINE}
        assert {"ping", "drain.off"} <= set(findings)

    @pytest.mark.parametrize(
        ("settings", "name", "level", "fix"),
        [
            ({"WEBSOCKET_PING_INTERVAL": 60}, "ping.slow", Level.ERROR, "INTERVAL to 24"),
            ({"WEBSOCKET_PING_INTERVAL": None}, "ping.off", Level.WARNING, "below 60"),
            ({"WEBSOCKET_PING_INTERVALL": 5}, "dwebsocket.E001", Level.ERROR, "INTERVAL?"),
            ({"WEBSOCKET_PING_INTERVAL": "5"}, "dwebsocket.E002", Level.ERROR, "Change"),
            ({"ALLOWED_HOSTS": []}, "hosts.none", Level.ERROR, "ALLOWED_HOSTS"),
            ({"ALLOWED_HOSTS": ["*"]}, "hosts.all", Level.WARNING, "ALLOWED_HOSTS"),
            ({"WEBSOCKET_ALLOWED_ORIGINS": ["*"]}, "origins.all", Level.WARNING, "origins"),
            ({"SESSION_COOKIE_SECURE": True}, "tls.header", Level.WARNING, "SECURE_PROXY_SSL"),
            ({"WEBSOCKET_MAX_CONNECTIONS": 10**7}, "files", Level.WARNING, "ulimit -n 10001000"),
        ],
    )
    def test_each(
        self, override: Override, settings: dict, name: str, level: Level, fix: str
    ) -> None:
        """Its name, its level, the change to make."""
        override(**settings)
        finding = by_id(local.examine(60))[name]
        assert finding.level is level
        assert fix in finding.fix

    def test_header_of_the_proxy_is_set(self, override: Override) -> None:
        """Nothing to say about TLS then."""
        header = ("HTTP_X_FORWARDED_PROTO", "https")
        override(SECURE_SSL_REDIRECT=True, SECURE_PROXY_SSL_HEADER=header)
        assert "tls.header" not in by_id(local.examine(60))

    def test_old_distribution_and_order_of_middleware(
        self, override: Override, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The system checks are among the findings."""
        (tmp_path / "dwebsocket-0.5.12.dist-info").mkdir()
        monkeypatch.setattr(checks, "__file__", str(tmp_path / "dwebsocket" / "conf" / "checks.py"))
        ours = "dwebsocket.middleware.WebSocketMiddleware"
        override(MIDDLEWARE=[ours, "django.middleware.csrf.CsrfViewMiddleware"])
        findings = by_id(local.examine(60))
        assert findings["dwebsocket.E004"].level is Level.ERROR
        assert findings["dwebsocket.W004"].level is Level.WARNING

    def test_server_that_runs_here(
        self, override: Override, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The server's name, and whether the drain fits."""
        server = process.Server(7, "gunicorn (worker class sync)", 10)
        monkeypatch.setattr(process, "servers", lambda: iter([server]))
        override(WEBSOCKET_DRAIN=9)
        findings = by_id(local.examine(60))
        assert "gunicorn (worker class sync) runs here" in findings["server.process"].what
        assert findings["drain.long"].fix.startswith("Set WEBSOCKET_DRAIN to 8.5 or less")
        override(WEBSOCKET_DRAIN=8)
        assert by_id(local.examine(60))["drain"].level is Level.FINE

    def test_no_limit_of_descriptors(self) -> None:
        """Nothing to compare with."""
        assert list(local.files(10**9, resource.RLIM_INFINITY)) == []

    @pytest.mark.parametrize(
        ("hard", "words"),
        [
            (1024, "the hard limit is 1024"),
            (10**6, "LimitNOFILE=11000)"),
            (resource.RLIM_INFINITY, "LimitNOFILE=11000)"),
            (None, "LimitNOFILE=11000)"),
        ],
    )
    def test_hard_limit(self, hard: int | None, words: str) -> None:
        """A shell cannot raise the limit above it."""
        finding = by_id(local.files(10_000, 1024, hard))["files"]
        assert finding.level is Level.WARNING
        assert words in finding.fix

    def test_servers_own_limit(self, override: Override, monkeypatch: pytest.MonkeyPatch) -> None:
        """The one that systemd gave it, not the shell's."""
        server = process.Server(7, "gunicorn", None)
        monkeypatch.setattr(process, "servers", lambda: iter([server]))
        monkeypatch.setattr(process, "files", lambda pid: (1024, 4096) if pid == 7 else None)
        override(WEBSOCKET_MAX_CONNECTIONS=1000)
        finding = [found for found in local.examine(60) if "gunicorn, process 7," in found.what][-1]
        assert (finding.id, finding.level) == ("files", Level.WARNING)
        assert "only 1024 descriptors" in finding.what

    def test_expected_connections(self, kernel: Kernel) -> None:
        """Those of all processes, not only of one."""
        kernel(sys__kernel__pid_max=32768)
        assert "threads" not in by_id(local.examine(60))
        assert "40000" in by_id(local.examine(60, 40_000))["threads"].what


Kernel = Callable[..., None]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kernel:
    """A machine without any limits; called with some, in names with `__` for `/`."""
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroups")
    no_limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: no_limit)

    def limit(folder: str = "proc", **files: object) -> None:
        for name, text in files.items():
            path = tmp_path / folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return limit


class TestMachine:
    """The limits of the kernel."""

    LOAD = (40_000, 10_000, 2**22)

    def test_nothing_is_known(self, kernel: Kernel) -> None:
        """As on systems without /proc: then it is not said that the limits suffice."""
        findings = by_id(machine.examine(*self.LOAD))
        assert set(findings) == {"machine"}
        assert "does not show its kernel's limits" in findings["machine"].what

    def test_everything_suffices(self, kernel: Kernel) -> None:
        """One finding says so."""
        kernel(
            **{"sys__kernel__threads-max": 100_000},
            sys__kernel__pid_max=4194304,
            sys__vm__max_map_count=65530,
            sys__vm__overcommit_memory=0,
            sys__net__core__somaxconn=4096,
            sys__net__ipv4__tcp_max_syn_backlog=4096,
            sys__net__ipv4__ip_local_port_range="1024\t65535",
            sys__net__netfilter__nf_conntrack_max=262144,
        )
        findings = by_id(machine.examine(*self.LOAD))
        assert {name: one.level for name, one in findings.items()} == {"machine": Level.FINE}

    @pytest.mark.parametrize(
        ("files", "name", "fix"),
        [
            ({"sys__kernel__threads-max": 15000}, "threads", "kernel.threads-max to 41000"),
            ({"sys__kernel__pid_max": 32768}, "threads", "kernel.pid_max to 41000"),
            ({"sys__vm__max_map_count": 30000}, "threads", "vm.max_map_count to 32000"),
            ({"sys__net__core__somaxconn": 128}, "backlog", "net.core.somaxconn to 4096"),
            (
                {"sys__net__ipv4__tcp_max_syn_backlog": 512},
                "syn_backlog",
                "net.ipv4.tcp_max_syn_backlog to 4096",
            ),
            (
                {"sys__net__ipv4__ip_local_port_range": "32768 60999"},
                "ports",
                "net.ipv4.ip_local_port_range to '1024 65535'",
            ),
            (
                {"sys__net__netfilter__nf_conntrack_max": 65536},
                "conntrack",
                "net.netfilter.nf_conntrack_max to 120000",
            ),
            (
                {"sys__vm__overcommit_memory": 2, "meminfo": "CommitLimit:   1000 kB"},
                "stacks",
                "vm.overcommit_memory to 0 or 1",
            ),
        ],
    )
    def test_each(self, kernel: Kernel, files: dict[str, object], name: str, fix: str) -> None:
        """Its name, and the setting to change."""
        kernel(**files)
        findings = by_id(machine.examine(*self.LOAD))
        assert set(findings) == {name}
        assert findings[name].level is Level.WARNING
        assert fix in findings[name].fix

    def test_fewer_connections_need_less(self, kernel: Kernel) -> None:
        """The same limits are enough for a small site."""
        kernel(
            **{"sys__kernel__threads-max": 15000, "sys__net__core__somaxconn": 128},
            sys__net__ipv4__ip_local_port_range="32768 60999",
        )
        assert set(by_id(machine.examine(1000, 1000, 2**22))) == {"machine"}

    @pytest.mark.parametrize(("limit", "is_short"), [("4915", True), ("max", False)])
    def test_control_group(self, kernel: Kernel, limit: str, is_short: bool) -> None:
        """systemd's TasksMax, Docker's --pids-limit."""
        kernel(self__cgroup="0::/system.slice/site.service")
        kernel("cgroups", **{"system.slice__site.service__pids.max": limit})
        findings = by_id(machine.examine(*self.LOAD))
        assert ("threads" in findings) is is_short
        assert not is_short or "TasksMax=41000" in findings["threads"].fix

    def test_users_processes(self, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
        """`ulimit -u` counts threads, too."""
        monkeypatch.setattr(resource, "getrlimit", lambda which: (4096, 4096))
        assert "ulimit -u 41000" in by_id(machine.examine(*self.LOAD))["threads"].fix


class TestProcess:
    """Servers by their command lines."""

    @pytest.mark.parametrize(
        ("line", "name", "timeout"),
        [
            ("/v/bin/python /v/bin/gunicorn site.wsgi", "gunicorn (worker class sync)", 15),
            ("python -m gunicorn --threads 4 a:b", "gunicorn (worker class gthread)", 15),
            ("gunicorn -k gevent -t 0 a:b", "gunicorn (worker class gevent)", 30),
            (
                "gunicorn --worker-class=gthread --timeout=200 --graceful-timeout 9 a:b",
                "gunicorn (worker class gthread)",
                9,
            ),
            ("python manage.py runserver 8000", "runserver", None),
            ("python -m uvicorn a:b", "uvicorn", None),
            ("uwsgi --http-socket :80", "uwsgi", None),
            ("/v/bin/python /v/bin/granian --interface wsgi a:b", "granian", None),
            ("python manage.py migrate", None, None),
            ("grep -r -n -i gunicorn", None, None),
            ("SCREEN -t web gunicorn a:b", None, None),
        ],
    )
    def test_recognises(self, line: str, name: str | None, timeout: float | None) -> None:
        """The program, the worker class, and its timeout by its options."""
        server = process.recognise(1, line.split())
        if name is None:
            assert server is None
        else:
            assert server == process.Server(1, name, timeout)

    def test_files(self) -> None:
        """The limits of a process that runs."""
        assert process.files(os.getpid()) == resource.getrlimit(resource.RLIMIT_NOFILE)
        assert process.files(2**31) is None

    def test_environment(self) -> None:
        """Options in GUNICORN_CMD_ARGS count, those of the command line more."""
        variables = ["A=b", "GUNICORN_CMD_ARGS=-k gevent --graceful-timeout 5"]
        server = process.recognise(1, ["gunicorn", "-k", "gthread", "a:b"], variables)
        assert server == process.Server(1, "gunicorn (worker class gthread)", 5)
        # gunicorn refuses them.
        assert process.recognise(1, ["man", "gunicorn"], ["GUNICORN_CMD_ARGS=--bind '"]) is None

    def test_finds_nothing_where_nothing_is(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
    ) -> None:
        """Processes elsewhere are not this project's."""
        monkeypatch.chdir(tmp_path)
        assert [server for server in process.servers() if str(tmp_path) in server.name] == []

    def test_says_where_it_cannot_look(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """As on macOS, which has no /proc."""
        assert process.is_visible()
        monkeypatch.setattr(process, "PROC", tmp_path / "none")
        assert list(process.servers()) == []
        assert process.files(os.getpid()) is None
        assert "has no /proc" in by_id(local.examine(60))["server.process"].what


class TestProxy:
    """The configuration that it prints."""

    @pytest.mark.parametrize("kind", proxy_configs.PROXIES)
    @pytest.mark.parametrize(
        ("upstream", "socket_form"),
        [
            ("127.0.0.1:9", {"*": "127.0.0.1:9"}),
            (
                "unix:/run/x.sock",
                {"nginx": "http://unix:/run/x.sock:", "caddy": "unix//run/x.sock"}
                | {"apache": "unix:/run/x.sock|http://localhost/"},
            ),
        ],
        ids=["tcp", "unix"],
    )
    def test_names_upstream_and_site(
        self, kind: str, upstream: str, socket_form: dict[str, str]
    ) -> None:
        """In each proxy's own way."""
        text = proxy_configs.snippet(kind, proxy_configs.Site("a.example", upstream, 60, 25))
        assert socket_form.get(kind, socket_form.get("*")) in text
        assert "a.example" in text
        assert "a ping goes out every 25 s" in text

    @pytest.mark.parametrize(
        ("listen", "caddy", "apache"),
        [
            ("80", "a.example {\n    reverse", "headers\n<VirtualHost *:80>"),
            ("443", "a.example {\n    reverse", "headers\n<VirtualHost *:443>"),
            ("8080", "http://:8080 {\n    reverse", ": Listen 8080\n<VirtualHost *:8080>"),
            (
                "127.0.0.1:8080",
                "http://:8080 {\n    bind 127.0.0.1\n    reverse",
                ": Listen 127.0.0.1:8080\n<VirtualHost 127.0.0.1:8080>",
            ),
            (
                "[::1]:80",
                "http://:80 {\n    bind ::1\n",
                ": Listen [::1]:80\n<VirtualHost [::1]:80>",
            ),
        ],
    )
    def test_listens_where_it_is_told_to(self, listen: str, caddy: str, apache: str) -> None:
        """A port alone is one of each address, and without TLS unless it is the usual one."""
        site = proxy_configs.Site("a.example", "127.0.0.1:9", 60, 25, listen)
        assert caddy in proxy_configs.snippet("caddy", site)
        assert apache in proxy_configs.snippet("apache", site)

    @pytest.mark.parametrize(
        ("name", "line"),
        [
            ("a.example", "    ServerName a.example\n"),
            ("127.0.0.1", "    ServerName 127.0.0.1\n"),
            ("[::1]", ""),
        ],
    )
    def test_apache_takes_no_address_in_brackets_as_a_name(self, name: str, line: str) -> None:
        """It would not start."""
        site = proxy_configs.Site(name, "127.0.0.1:9", 60, 25)
        text = proxy_configs.snippet("apache", site)
        assert f"<VirtualHost *:80>\n{line}    ProxyPreserveHost On\n" in text

    def test_times(self) -> None:
        """Whole seconds as such, fractions as milliseconds; no pings are said to be none."""
        text = proxy_configs.snippet("nginx", proxy_configs.Site("a", "b:1", 60, None))
        assert "proxy_read_timeout 60s;" in text
        assert "WEBSOCKET_PING_INTERVAL is None" in text
        assert "timeout=2500ms" in proxy_configs.snippet(
            "apache", proxy_configs.Site("a", "b:1", 2.5, 1)
        )


@contextlib.contextmanager
def saying(answer: bytes) -> Iterator[str]:
    """A server that sends the same answer to every request, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client:
                        client.recv(65536)
                        client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


class TestAnswers:
    """The doctor is not misled by wrong answers."""

    @pytest.mark.parametrize(
        ("junk", "reason"),
        [
            (b"", "hung up"),
            (b"SSH-2.0-x\r\n\r\n", "no HTTP response"),
            (b"HTTP/1.1 abc\r\n\r\n", "no HTTP response"),
            (b"\0" * 9, "no HTTP response"),
        ],
    )
    def test_junk(self, junk: bytes, reason: str) -> None:
        """An answer that is no HTTP is reported as such."""
        with saying(junk) as url:
            (finding,) = live.examine(live.Target(url, timeout=30))
        assert finding.id == "unreachable"
        assert reason in finding.what

    @pytest.mark.parametrize(
        ("header", "reason"),
        [
            (b"Upgrade: websocket\r\nSec-WebSocket-Accept: eA==", "does not answer this request"),
            (b"Sec-WebSocket-Accept: eA==", "Upgrade header"),
        ],
    )
    def test_wrong_101(self, header: bytes, reason: str) -> None:
        """101 alone is not enough."""
        head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n" + header
        with saying(head + b"\r\n\r\n") as url:
            findings = by_id(live.examine(live.Target(url, timeout=30)))
        assert findings["handshake.key"].level is Level.ERROR
        assert reason in findings["handshake.key"].what

    def test_headers_of_the_user_replace_the_usual_ones(self) -> None:
        """In any case of letters, and each is sent once."""
        with Hostile(lambda _: iter([b"HTTP/1.1 404 Not Found\r\n\r\n"])) as server:
            headers = {"origin": "https://a.example", "Cookie": "sessionid=a"}
            list(live.examine(live.Target(server.url(), headers=headers, timeout=30)))
        lines = server.requests[0].decode().split("\r\n")
        named = [line for line in lines if line.lower().startswith(("origin:", "cookie:", "user-"))]
        assert named == [
            "User-Agent: websocket_doctor",
            "origin: https://a.example",
            "Cookie: sessionid=a",
        ]

    def test_words_of_a_refusal(self) -> None:
        """Plain text is shown, pages are not."""
        for kind, words in ((b"text/plain; charset=utf-8", True), (b"text/html", False)):
            head = b"HTTP/1.1 409 Conflict\r\nContent-Type: " + kind + b"\r\n\r\nThe reason\n"
            with saying(head) as url:
                (finding,) = live.examine(live.Target(url, timeout=30))
            assert finding.what == "The handshake gets 409 Conflict" + ": The reason" * words + "."

    @pytest.mark.parametrize(
        ("status", "name"),
        [
            (b"502 Bad Gateway", "proxy.upstream"),
            (b"302 Found\r\nLocation: /log-in/", "handshake.redirect"),
            (b"401 Unauthorized", "handshake.forbidden"),
            (b"404 Not Found", "handshake.missing"),
            (b"200 OK", "handshake"),
            (b"500 Internal Server Error", "handshake.failed"),
            (b"103 Early Hints\r\n\r\nHTTP/1.1 404 Not Found", "handshake.missing"),
        ],
    )
    def test_refusals(self, status: bytes, name: str) -> None:
        """Each status has its explanation."""
        with saying(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno") as url:
            assert list(by_id(live.examine(live.Target(url, timeout=30)))) == [name]

    @pytest.mark.parametrize(
        ("frames", "silence", "name", "words"),
        [
            (
                b"\x89\x01x\x82\x7e\x00\x80" + b"y" * 128,
                0.2,
                "silence",
                "0.2 s of silence; 1 pings",
            ),
            (b"\x89\x01x\x88\x00", 60, "silence", "The view itself closed"),
            (b"\x89\x89", 60, "silence.broken", "masked"),
            (None, 60, "silence.cut", "was cut after"),
        ],
    )
    def test_silence(self, frames: bytes | None, silence: float, name: str, words: str) -> None:
        """Messages are taken meanwhile, pings are answered, and the end is explained."""
        is_over = threading.Event()

        def answers(request: bytes) -> Iterator[bytes]:
            yield accepting(request) + (frames or b"")
            if frames is not None:
                is_over.wait(20)

        with Hostile(answers) as server:
            visit = live.Target(server.url(), silence=silence, timeout=30)
            with contextlib.closing(visit.shake_hands()) as websocket:
                if silence < 1:
                    eventually(lambda: websocket.pings_received == 1)
                (finding,) = live._keep_silent(visit, websocket, None)
            is_over.set()
        assert finding.id == name
        assert words in finding.what


class TestDiagnosis:
    """The report, and the requests that get it."""

    @pytest.fixture
    def ask(self) -> Callable[..., dict[str, Any] | None]:
        """Ask with a handshake's header: `ask(value, **changes of the environ)`."""
        from django.core.handlers.wsgi import WSGIRequest

        def ask_(value: str | None, **changes: str | None) -> dict[str, Any] | None:
            environ = handshake("/chat/", HTTP_X_WEBSOCKET_DOCTOR=value, **changes)
            answer = site_report.answer(WSGIRequest(environ), conf.Options.current({}))
            return None if answer is None else json.loads(answer.content)

        return ask_

    def test_report(self, ask: Callable) -> None:
        """The headers that arrived, the server that runs, the settings."""
        report = ask(
            site_question.question("testserver", "/chat/"), HTTP_ORIGIN="http://evil.example"
        )
        assert report["request"]["upgrade"] == "websocket"
        assert report["request"]["host"] == "testserver"
        assert "evil.example" in report["request"]["objection"]
        assert report["settings"]["ping_interval"] == 25
        assert report["server"]["refusal"]
        assert report["process"]["leaving"] is False
        assert list(report["process"]["events"]) == list(EVENTS)
        assert report["process"]["groups"] == group_statistics()

    @pytest.mark.parametrize("value", [None, "", "chat", "/chat/:abc:def"])
    def test_unsigned(self, ask: Callable, value: str | None) -> None:
        """A request without a signature does not get it."""
        assert ask(value) is None

    @pytest.mark.parametrize("path", ["/other/", "/chat", "/chat//", ""])
    def test_signed_for_elsewhere(self, ask: Callable, path: str) -> None:
        """Another address of the same site."""
        assert ask(site_question.question("testserver", path)) is None

    @pytest.mark.parametrize(
        ("salt", "key"), [("else", None), ("dwebsocket.operations.doctor.question", "another")]
    )
    def test_signed_by_others(self, ask: Callable, salt: str, key: str | None) -> None:
        """Another purpose, another key."""
        words, _, _ = site_question.question("testserver", "/chat/").rpartition(":")
        assert ask(signing.Signer(key=key, salt=salt).sign(words)) is None

    @pytest.mark.parametrize("host", ["testserver:8000", "evil.example", "", "testserver.example"])
    def test_signed_for_another_host(self, ask: Callable, host: str) -> None:
        """A server that was asked cannot ask another with that: it learns that it is another."""
        arrived = {"protocol": "HTTP/1.1", "upgrade": "websocket", "connection": "Upgrade"}
        assert ask(site_question.question(host, "/chat/")) == {
            "request": {
                **arrived,
                "secure": False,
                "redirected": False,
                "origin_allowed": True,
                "made_up_address": False,
            }
        }

    @pytest.mark.parametrize("path", ["/ch%61t/", "/chat/"])
    def test_other_ways_to_write_an_address(self, ask: Callable, path: str) -> None:
        """Large letters in the host, letters that are written as bytes."""
        assert ask(site_question.question("TestServer", path))["request"]["host"] == "testserver"

    @pytest.mark.parametrize("answered", [b"[]", b"{}", b"", b"\xff", b"[" * 100_000])
    def test_forged_report(self, answered: bytes) -> None:
        """Without our signature, or with that of another answer, it is none."""
        asked = site_question.question("testserver", "/chat/")
        assert site_report.read(answered, asked, "") is None
        assert site_report.read(answered, asked, asked.rpartition(":")[2]) is None

    def test_signed_too_long_ago(self, ask: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
        """An old question is refused, and so is one with a later time."""
        for seconds, is_answered in ((-90, False), (-30, True), (30, True), (90, False)):
            with monkeypatch.context() as patch:
                patch.setattr(time, "time", lambda seconds=seconds: NOW + seconds)
                question = site_question.question("testserver", "/chat/")
                patch.setattr(time, "time", lambda: NOW)
                assert bool(ask(question)) is is_answered

    def test_asgi_server_without_websockets(self) -> None:
        """A handshake that came as plain HTTP: the advice is a package, not another server."""
        from django.core.handlers.asgi import ASGIRequest

        question = site_question.question("testserver", "/chat/")
        headers = [
            (name.lower().removeprefix("http_").replace("_", "-").encode(), value.encode())
            for name, value in handshake("/chat/", HTTP_X_WEBSOCKET_DOCTOR=question).items()
            if name.startswith("HTTP_")
        ]
        scope = {"type": "http", "method": "GET", "path": "/chat/", "headers": headers}
        answer = site_report.answer(ASGIRequest(scope, None), conf.Options.current({}))
        assert answer is not None
        report = json.loads(answer.content)
        findings = by_id(live._findings_of(live.Target("ws://testserver/chat/"), report))
        assert "server.unsupported" not in findings
        assert findings["server.plain_http"].level is Level.ERROR
        assert "pip install websockets" in findings["server.plain_http"].fix

    def test_server_that_speaks_by_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Under ASGI the server has validated the handshake, and may keep its headers."""
        # Modules of servers that other tests have imported.
        monkeypatch.setattr(site_report, "_ASGI_SERVERS", ())
        from django.core.handlers.asgi import ASGIRequest

        scope = {
            "type": "websocket",
            "method": "GET",
            "path": "/chat/",
            "scheme": "https",
            "headers": [
                (b"host", b"testserver"),
                (b"x-websocket-doctor", site_question.question("testserver", "/chat/").encode()),
            ],
        }
        answer = site_report.answer(ASGIRequest(scope, None), conf.Options.current({}))
        assert answer is not None
        report = json.loads(answer.content)
        assert report["server"]["refusal"] is None
        assert report["server"]["software"].endswith("(ASGI)")
        assert (report["request"]["upgrade"], report["request"]["secure"]) == ("websocket", True)
        findings = by_id(live._findings_of(live.Target("wss://testserver/chat/"), report))
        assert {finding.level for finding in findings.values()} == {Level.FINE}
        assert "ping.server" in findings
        assert "does not give its clients' connections away" in findings["asgi.kept"].what
        report["server"]["software"] = "granian (ASGI)"
        report["process"]["events"]["websocket.refused"] = {"403": 2}
        counts = report["process"]["groups"]["default"]
        # Other tests of this process have counted, too.
        counts.update({name: 0 for name in counts if name != "dropped"}, published=3, lag=0.0025)
        counts["dropped"] = {"latest": 7, "oldest": 0}
        counts["history"] = {"bytes": 5000, "evicted": 2}
        visit = live.Target("wss://testserver/chat/")
        findings = by_id(live._findings_of(visit, report))
        assert findings["ping.none"].level is Level.WARNING
        assert "websocket.refused 403: 2" in findings["server.events"].what
        found = (
            "'default': published 3, dropped (latest) 7, lag 2.5 ms, "
            "history 5000 bytes, 2 messages evicted."
        )
        assert findings["server.groups"].what.endswith(found)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"timeout": -1}, "--timeout must be 0 or more.* not -1"),
        ({"silence": math.nan}, "--silence must be 0 or more.* not nan"),
        ({"proxy_timeout": math.inf}, "--proxy-timeout must be 0 or more.* not inf"),
        ({"connections": -1}, "--connections must be 1 or more.* not -1"),
        ({"proxy": "nginx", "proxy_timeout": math.nan}, "--proxy-timeout must be .* not nan"),
        ({"proxy": "nginx", "upstream": "a;b"}, "--upstream: 'a;b' is no address"),
        ({"proxy": "nginx", "listen": "99999999"}, "--listen: '99999999' is no address"),
        ({"url": "wss://localhost:1/", "cafile": "/nowhere"}, "--cafile: .*No such file"),
    ],
)
def test_wrong_options_of_the_command_are_named(options: dict[str, Any], reason: str) -> None:
    """By the command's own names."""
    with pytest.raises(CommandError, match=reason):
        call_command(websocket_doctor.Command(), stdout=io.StringIO(), **options)


class TestWayToTheView:
    """A question whose Host or scheme middleware would refuse."""

    @pytest.fixture
    def send(self) -> Callable[..., dict[str, Any]]:
        """Begin a request as a server does: `send(**changes of the environ)` gives the environ."""
        from django.core.signals import request_started

        def send_(asked: str, **changes: Any) -> dict[str, Any]:
            environ = handshake("/chat/", HTTP_X_WEBSOCKET_DOCTOR=asked, **changes)
            request_started.send(sender=None, environ=environ)
            return environ

        return send_

    def test_host_that_is_allowed_stays(self, send: Callable) -> None:
        """Also with a question."""
        environ = send(site_question.question("testserver", "/chat/"))
        assert environ["HTTP_HOST"] == "testserver"
        assert site_question.REFUSED_HOST not in environ

    def test_question_of_a_stranger_changes_nothing(self, send: Callable) -> None:
        """Its signature is by another key."""
        asked = signing.Signer(key="another", salt="dwebsocket.operations.doctor.question")
        words = site_question.question("testserver", "/chat/").rpartition(":")[0]
        environ = send(asked.sign(words), HTTP_HOST="a_b")
        assert environ["HTTP_HOST"] == "a_b"

    def test_host_of_the_proxy(self, send: Callable, override: Callable[..., None]) -> None:
        """The one of X-Forwarded-Host counts where the site believes it."""
        override(USE_X_FORWARDED_HOST=True, ALLOWED_HOSTS=["testserver"])
        asked = site_question.question("testserver", "/chat/")
        environ = send(asked, HTTP_HOST="testserver", HTTP_X_FORWARDED_HOST="inner:80")
        assert environ["HTTP_HOST"] == "testserver"
        assert environ[site_question.REFUSED_HOST] == "inner:80"
        assert "HTTP_X_FORWARDED_HOST" not in environ

    @pytest.mark.parametrize(
        ("hosts", "taken"), [([".chat.example"], "chat.example"), (["*"], "elsewhere")]
    )
    def test_address_that_is_not_allowed(
        self, send: Callable, override: Callable[..., None], hosts: list[str], taken: str
    ) -> None:
        """Then the first host of the site is taken."""
        override(ALLOWED_HOSTS=hosts)
        environ = send(site_question.question("elsewhere", "/chat/"), HTTP_HOST="a_b")
        assert environ["HTTP_HOST"] == taken
        assert environ[site_question.REFUSED_HOST] == "a_b"

    @pytest.mark.parametrize(
        ("told", "is_changed"), [("http", True), ("https", False), (None, True)]
    )
    def test_scheme(
        self, send: Callable, override: Callable[..., None], told: str | None, is_changed: bool
    ) -> None:
        """Where the proxy hides the client's TLS the site would redirect for ever."""
        override(
            SECURE_SSL_REDIRECT=True,
            SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
        )
        asked = site_question.question("testserver", "/chat/")
        environ = send(asked, HTTP_X_FORWARDED_PROTO=told)
        assert (site_question.REFUSED_SCHEME in environ) is is_changed
        assert (environ["wsgi.url_scheme"] == "https") is is_changed

    def test_headers_of_an_asgi_server(self) -> None:
        """They are changed in the scope; others stay as they are, also twice the same."""
        from django.core.handlers.asgi import ASGIRequest
        from django.core.signals import request_started

        others = [(b"cookie", b"a=1"), (b"cookie", b"b=2")]
        asked = (b"x-websocket-doctor", site_question.question("testserver", "/chat/").encode())
        scope: dict[str, Any] = {
            "type": "http", "method": "GET", "path": "/chat/", "scheme": "http",
            "headers": [(b"host", b"a_b"), *others, asked],
        }  # fmt: skip
        request_started.send(sender=None, scope=scope)
        new = [(b"host", b"testserver"), (b"x-websocket-doctor-host", b"a_b")]
        assert scope["headers"][:3] == [*others, asked]
        assert sorted(scope["headers"][3:]) == new
        assert scope["scheme"] == "http"
        assert ASGIRequest(scope, None).get_host() == "testserver"

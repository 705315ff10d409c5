"""The ways to a server: TLS with a certificate of our own, and proxies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from datetime import datetime, timezone
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from dwebsocket import ConnectionClosed, ConnectionFailed, SendTimeout, aconnect, connect
from dwebsocket.client import options
from support.certificates import authority_file, self_signed_file, server_file
from support.far_server import ConnectProxy, far_server, server_context
from support.hostile import accepting
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.server import ServerConnection

BIG = bytes(range(256)) * 8192
LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """A server without TLS."""
    with far_server() as url:
        yield url


@pytest.fixture(scope="module")
def tls_echo() -> Iterator[str]:
    """A server with TLS."""
    with far_server(ssl=server_context()) as url:
        yield url


def issued_context(
    issued: trustme.LeafCert, folder: Path, *, sends_chain: bool = True
) -> ssl.SSLContext:
    """Give a context with a certificate of an authority, and with the chain to that."""
    pem = folder / "server.pem"
    issued.private_key_pem.write_to_path(str(pem))
    for each in issued.cert_chain_pems if sends_chain else issued.cert_chain_pems[:1]:
        each.write_to_path(str(pem), append=True)
    return server_context(pem)


def own_sockets() -> Iterator[socket.socket]:
    """Give a copy of each socket of this process."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as found:
                    yield found


class TestTls:
    """`wss://`."""

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_messages_come_back(self, version: ssl.TLSVersion) -> None:
        """Of any size, and the close is an orderly one."""
        codes: SimpleQueue[int | None] = SimpleQueue()

        def echo(connection: ServerConnection) -> None:
            for message in connection:
                connection.send(message)
            codes.put(connection.close_code)

        context = server_context()
        context.minimum_version = context.maximum_version = version
        with far_server(echo, ssl=context) as url:
            with connect(url, ca_file=authority_file(), compression=False) as websocket:
                for message in ("", "text", BIG, BIG):
                    websocket.send(message)
                for message in ("", "text", BIG, BIG):
                    assert websocket.receive(20) == message
                assert websocket.ping() > 0
            assert codes.get(timeout=60) == 1000

    def test_a_server_that_stops_reading_is_given_up(self) -> None:
        """Its socket is closed, also if bytes wait that the server never takes."""
        done = threading.Event()
        options: dict[str, Any] = {"ca_file": authority_file(), "compression": False}
        options |= {"send_timeout": 0.2, "close_timeout": 0.2}
        server = {"ssl": server_context(), "max_queue": 1, "ping_interval": None}
        with far_server(lambda _: done.wait(), **server) as url:
            try:
                with connect(url, **options) as websocket:
                    held = len([*own_sockets()])
                    with contextlib.suppress(SendTimeout):
                        while True:
                            websocket.send(BIG)
                # The driver's socket, its other end, and that to the server.
                eventually(lambda: len([*own_sockets()]) == held - 3, what="its sockets are closed")
            finally:
                done.set()

    def test_a_server_that_ends_its_stream_behind_its_close_gets_the_answer(self) -> None:
        """As without TLS: it may read what comes after its own end."""
        answers: SimpleQueue[bytes] = SimpleQueue()

        def serve(listener: socket.socket) -> None:
            client, _ = listener.accept()
            with server_context().wrap_socket(client, server_side=True) as tls:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += tls.recv(65536)
                tls.sendall(accepting(request) + b"\x88\x02\x03\xe8")
                # `tls.shutdown` would end the encryption, too.
                socket.socket.shutdown(tls, socket.SHUT_WR)
                answers.put(tls.recv(65536))

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=serve, args=[listener])
            thread.start()
            url = f"wss://127.0.0.1:{listener.getsockname()[1]}/"
            with connect(url, ca_file=authority_file()) as websocket:
                with pytest.raises(ConnectionClosed) as closed:
                    websocket.receive(20)
                assert (closed.value.code, closed.value.by) == (1000, "peer")
            thread.join(60)
        answer = answers.get_nowait()
        assert (answer[:2], len(answer)) == (b"\x88\x82", 8)

    @pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has it")
    def test_a_server_that_acknowledges_nothing_is_given_up(self, tls_echo: str) -> None:
        """By the system, as without TLS."""
        with connect(tls_echo, ca_file=authority_file(), ping_interval=3, ping_timeout=4):
            assert 7000 in {
                each.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                for each in own_sockets()
                if each.family == socket.AF_INET
            }

    def test_in_a_loop(self, tls_echo: str) -> None:
        """Without blocking it."""

        async def main() -> None:
            async with aconnect(tls_echo, ca_file=str(authority_file())) as websocket:
                await websocket.asend(BIG)
                assert await websocket.areceive(20) == BIG

        asyncio.run(main())

    def test_an_unknown_certificate_is_refused(self, tls_echo: str) -> None:
        """Unless the caller wants no verification."""
        with pytest.raises(
            ConnectionFailed, match=r"no TLS with 127.0.0.1: .*UnknownIssuer"
        ) as failed:
            connect(tls_echo)
        assert failed.value.step == "certificate"
        with connect(tls_echo, verify=False) as websocket:
            websocket.send("unverified")
            assert websocket.receive(20) == "unverified"

    def test_the_systems_certificates(
        self, tls_echo: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Are trusted by default; `SSL_CERT_FILE` names others, as for OpenSSL."""
        options._shared_tls.cache_clear()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority_file()))
        try:
            for _ in range(3):
                with connect(tls_echo) as websocket:
                    websocket.send("trusted")
                    assert websocket.receive(20) == "trusted"
            # They are read once.
            assert options._shared_tls.cache_info().misses == 1
            options._shared_tls.cache_clear()
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
            monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
            with pytest.raises(ValueError, match="the system has no certificates of authorities"):
                connect(tls_echo)
        finally:
            options._shared_tls.cache_clear()

    def test_the_name_has_to_be_right(self, tls_echo: str) -> None:
        """That of the URL, or another one that is asked for."""
        with pytest.raises(ConnectionFailed, match=r"no TLS with example\.com"):
            connect(tls_echo, ca_file=authority_file(), server_hostname="example.com")
        with connect(tls_echo, ca_file=authority_file(), server_hostname="localhost") as websocket:
            websocket.send("named")
            assert websocket.receive(20) == "named"

    def test_a_certificate_that_signs_itself(self, tls_echo: str) -> None:
        """Is trusted where it stands in `ca_file`, for its own name only."""
        own, other = self_signed_file(), self_signed_file("127.0.0.2")
        with far_server(ssl=server_context(own)) as url:
            with connect(url, ca_file=own) as websocket:
                websocket.send("trusted")
                assert websocket.receive(20) == "trusted"
            for given, reason in (
                ({"ca_file": authority_file()}, "CaUsedAsEndEntity|UnknownIssuer"),
                ({"ca_file": other}, "CaUsedAsEndEntity|UnknownIssuer"),
                ({"ca_file": own, "server_hostname": "localhost"}, "not valid for name"),
            ):
                with pytest.raises(ConnectionFailed, match=reason) as failed:
                    connect(url, **given)
                assert failed.value.step == "certificate"
        # It is no authority for others.
        with pytest.raises(ConnectionFailed, match="UnknownIssuer"):
            connect(tls_echo, ca_file=own)

    @pytest.mark.parametrize("sends_chain", [True, False])
    def test_an_own_certificate_of_an_authority(self, sends_chain: bool, tmp_path: Path) -> None:
        """Is trusted where it stands in `ca_file`, though the authority does not."""
        authority = trustme.CA().create_child_ca()
        issued = authority.issue_cert("127.0.0.1")
        own, other = tmp_path / "own.pem", tmp_path / "other.pem"
        issued.cert_chain_pems[0].write_to_path(str(own))
        authority.issue_cert("127.0.0.1").cert_chain_pems[0].write_to_path(str(other))
        with far_server(ssl=issued_context(issued, tmp_path, sends_chain=sends_chain)) as url:
            with connect(url, ca_file=own) as websocket:
                websocket.send("trusted")
                assert websocket.receive(20) == "trusted"
            for given, reason in (
                ({"ca_file": other}, "UnknownIssuer"),
                ({"ca_file": own, "server_hostname": "localhost"}, "not valid for name"),
            ):
                with pytest.raises(ConnectionFailed, match=reason) as failed:
                    connect(url, **given)
                assert failed.value.step == "certificate"

    def test_an_own_certificate_that_has_expired(self, tmp_path: Path) -> None:
        """Is refused, whatever has signed it."""
        issued = trustme.CA().issue_cert("127.0.0.1", not_after=LONG_AGO)
        own = tmp_path / "own.pem"
        issued.cert_chain_pems[0].write_to_path(str(own))
        with far_server(ssl=issued_context(issued, tmp_path)) as url:
            with pytest.raises(ConnectionFailed, match="certificate expired") as failed:
                connect(url, ca_file=own)
            assert failed.value.step == "certificate"

    def test_an_own_certificate_of_an_authority_that_has_expired(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Is trusted: the rest of the chain does not count."""
        root = trustme.CA()
        with monkeypatch.context() as patch:
            patch.setattr(trustme, "DEFAULT_EXPIRY", LONG_AGO)
            authority = root.create_child_ca()
        issued = authority.issue_cert("127.0.0.1")
        own, roots = tmp_path / "own.pem", tmp_path / "roots.pem"
        issued.cert_chain_pems[0].write_to_path(str(own))
        root.cert_pem.write_to_path(str(roots))
        with far_server(ssl=issued_context(issued, tmp_path)) as url:
            with connect(url, ca_file=own) as websocket:
                websocket.send("trusted")
                assert websocket.receive(20) == "trusted"
            with pytest.raises(ConnectionFailed, match="certificate expired"):
                connect(url, ca_file=roots)

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_a_server_that_wants_a_certificate(self, version: ssl.TLSVersion) -> None:
        """Its alert comes within the handshake of TLS 1.2, and after that of TLS 1.3."""
        context = server_context()
        context.minimum_version = context.maximum_version = version
        context.load_verify_locations(authority_file())
        context.verify_mode = ssl.CERT_REQUIRED
        with far_server(ssl=context) as url:
            with pytest.raises(ConnectionFailed, match=r"no TLS with 127\.0\.0\.1") as failed:
                connect(url, ca_file=authority_file())
            assert failed.value.step == "tls"

    @pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
    def test_an_encrypted_key(self, form: str, tmp_path: Path) -> None:
        """Is named as the reason."""
        key = tmp_path / "key.pem"
        own = serialization.load_pem_private_key(server_file().read_bytes(), None)
        password = serialization.BestAvailableEncryption(b"secret")
        private_format = getattr(serialization.PrivateFormat, form)
        key.write_bytes(own.private_bytes(serialization.Encoding.PEM, private_format, password))
        with pytest.raises(ValueError, match=r"the client's key: it is encrypted$"):
            connect("wss://127.0.0.1/", client_cert=(server_file(), key))

    @pytest.mark.parametrize("parts", ["one file", "two files"])
    def test_a_certificate_of_the_client(self, parts: str, tmp_path: Path) -> None:
        """For servers that want one."""
        context = server_context()
        context.load_verify_locations(authority_file())
        context.verify_mode = ssl.CERT_REQUIRED
        pem = server_file()
        own = pem if parts == "one file" else (pem, tmp_path / "key.pem")
        (tmp_path / "key.pem").write_text(pem.read_text())
        with far_server(ssl=context) as url:
            with connect(url, ca_file=authority_file(), client_cert=own) as websocket:
                websocket.send("known")
                assert websocket.receive(20) == "known"

    def test_a_server_without_tls(self, echo: str) -> None:
        """Says so."""
        with pytest.raises(ConnectionFailed, match=r"no TLS with 127\.0\.0\.1") as failed:
            connect(echo.replace("ws://", "wss://"), verify=False)
        assert failed.value.step == "tls"


class TestProxy:
    """HTTP proxies, by CONNECT."""

    @pytest.fixture
    def far_echo(self, echo: str) -> str:
        """The server by an address that is none of the loopback interface."""
        return echo.replace("127.0.0.1", "0.0.0.0")

    @pytest.fixture(autouse=True)
    def _no_proxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The environment of the tests says nothing about proxies."""
        for name in ("http", "https", "all", "no"):
            monkeypatch.delenv(f"{name}_proxy", raising=False)
            monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)

    @pytest.mark.parametrize("login", ["", "user:secret"])
    def test_by_an_argument(self, echo: str, tls_echo: str, login: str) -> None:
        """With a login, and with TLS behind it."""
        with ConnectProxy(login) as proxy:
            for url in (echo, tls_echo):
                with connect(url, proxy=proxy.url, ca_file=authority_file()) as websocket:
                    websocket.send("through")
                    assert websocket.receive(20) == "through"
        assert proxy.asked == [url.partition("://")[2] for url in (echo, tls_echo)]

    @pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
    def test_by_the_environment(
        self, far_echo: str, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Unless the caller, or `NO_PROXY`, says otherwise."""
        with ConnectProxy() as proxy:
            monkeypatch.setenv(name, proxy.url)
            connect(far_echo).close()
            assert len(proxy.asked) == 1
            connect(far_echo, proxy=None).close()
            monkeypatch.setenv("NO_PROXY", "example.com,0.0.0.0")
            connect(far_echo).close()
            assert len(proxy.asked) == 1

    def test_this_machine_is_reached_directly(
        self, echo: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The environment changes nothing about that; a proxy that the caller names is asked."""
        with ConnectProxy() as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            for url in (echo, echo.replace("127.0.0.1", "localhost")):
                connect(url).close()
            assert proxy.asked == []
            connect(echo, proxy=proxy.url).close()
            assert len(proxy.asked) == 1

    def test_each_scheme_has_its_own(self, far_echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """`HTTPS_PROXY` is not for `ws://`."""
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        connect(far_echo).close()
        with pytest.raises(ConnectionFailed, match=r"the proxy 127.0.0.1 port 1: cannot connect"):
            connect(far_echo.replace("ws://", "wss://"))
        monkeypatch.setenv("HTTPS_PROXY", "socks5://user:secret@127.0.0.1:1")
        with pytest.raises(ValueError, match=r"HTTPS_PROXY: 'socks5://127.0.0.1:1'"):
            connect(far_echo.replace("ws://", "wss://"))

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            # Its text may hold what it was sent, such as the login.
            (b"HTTP/1.1 403 secret\r\n\r\n", r"refused the connection to .* with 403$"),
            (b"HTTP/1.1 200 OK\r\n\r\nearly", "bytes before the server could"),
            (b"SSH-2.0\r\n", "no HTTP response"),
        ],
    )
    def test_a_proxy_that_refuses(self, echo: str, answer: bytes, reason: str) -> None:
        """Is named, with its reason."""
        with (
            ConnectProxy(answer=answer) as proxy,
            pytest.raises(
                ConnectionFailed, match=rf"the proxy 127.0.0.1 port \d+: .*{reason}"
            ) as failed,
        ):
            connect(echo, proxy=proxy.url)
        assert failed.value.step == "proxy"

    def test_a_wrong_login(self, echo: str) -> None:
        """407 is a refusal, too."""
        with ConnectProxy("user:secret") as proxy:
            url = proxy.url.replace("secret", "guess")
            with pytest.raises(ConnectionFailed, match="407") as failed:
                connect(echo, proxy=url)
        assert "guess" not in str(failed.value)

"""The redis backend by TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trustme
from django.core.exceptions import ImproperlyConfigured

from dwebsocket.exceptions import GroupUnavailable
from support.certificates import authority_file, server_file
from support.redis import Redis, tls_options
from support.redis_backend import Member, backend, send
from support.server import free_port
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("redis")
CA = str(authority_file())


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server that takes TLS there."""
    port = free_port()
    with Redis(*tls_options(port), "--bind", "127.0.0.1", "127.0.0.2"):
        yield port


@pytest.fixture(scope="module")
def strict_port() -> Iterator[int]:
    """The port of one that asks for a client's certificate."""
    port = free_port()
    with Redis(*tls_options(port, asks_clients=True)):
        yield port


def works(location: str, **options: Any) -> None:
    """Publish something to a member."""
    made = backend(location, OPTIONS=options)
    member = Member(made, "room")
    send(made, "room", "x")
    assert member.receive() == "x"
    eventually(lambda: made.count("room") == 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_own_authority(port: int, host: str) -> None:
    """Names and addresses are verified."""
    works(f"rediss://{host}:{port}/0", ssl_ca_certs=CA)


def test_an_unknown_authority(port: int, tmp_path: Path) -> None:
    """Is refused, unless verification is switched off."""
    location = f"rediss://127.0.0.1:{port}/0"
    with pytest.raises(GroupUnavailable, match="UnknownIssuer"):
        works(location)
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with pytest.raises(GroupUnavailable, match=r"[Cc]ertificate"):
        works(location, ssl_ca_certs=str(other))
    works(location, ssl_cert_reqs=None)
    works(location, ssl_cert_reqs="none", ssl_ca_certs=CA)


def test_another_name(port: int) -> None:
    """Is refused."""
    with pytest.raises(GroupUnavailable, match="not valid for"):
        works(f"rediss://127.0.0.2:{port}/0", ssl_ca_certs=CA)


def test_a_client_certificate(strict_port: int) -> None:
    """With its key in the same file, or in another one."""
    location, own = f"rediss://127.0.0.1:{strict_port}/0", str(server_file())
    works(location, ssl_ca_certs=CA, ssl_certfile=own)
    works(location, ssl_ca_certs=CA, ssl_certfile=own, ssl_keyfile=own)
    with pytest.raises(GroupUnavailable, match=r"[Cc]ertificate|closed"):
        works(location, ssl_ca_certs=CA)


def test_a_server_without_tls() -> None:
    """The exception says that it is none."""
    with Redis() as server, pytest.raises(GroupUnavailable, match=r"rediss://.*: "):
        works(server.url.replace("redis://", "rediss://"), ssl_ca_certs=CA)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("ssl_ca_certs", None, "No such file"),
        ("ssl_ca_certs", "", "there is none in the file"),
        ("ssl_ca_certs", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n", "auth"),
        ("ssl_certfile", "no certificate", "there is none in the file"),
    ],
)
def test_files_that_are_no_certificates(
    port: int, tmp_path: Path, name: str, content: str | None, why: str
) -> None:
    """Are an error of the settings."""
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(
        ImproperlyConfigured, match=r"^WEBSOCKET_GROUPS\['default'\]\['OPTIONS'\]"
    ) as caught:
        works(f"rediss://127.0.0.1:{port}/0", **{name: str(path)})
    assert why in str(caught.value)

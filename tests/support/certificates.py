"""A certificate authority for one run of the tests, and contexts that trust it."""

from __future__ import annotations

import atexit
import functools
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

import trustme


class TlsAddress(tuple[str, int]):
    """An address whose listener speaks TLS."""

    __slots__ = ()


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="dws-tls-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    return folder


def server_file() -> Path:
    """Return the path of a file with the server's key and certificate."""
    return _folder() / "server.pem"


def authority_file() -> Path:
    """Return the path of the authority's certificate."""
    return _folder() / "ca.pem"


@functools.cache
def self_signed_file(name: str = "127.0.0.1") -> Path:
    """Return the path of a key and a certificate for an address, made as many pages tell."""
    path = _folder() / f"self-signed-{name}.pem"
    certificate = path.with_suffix(".crt")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=IP:{name}",
         "-keyout", str(path), "-out", str(certificate)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    path.write_text(path.read_text() + certificate.read_text())
    return path


def client_context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """
    Return a context for a client that trusts the authority, and is strict about the end.

    A stream that ends without close_notify is an error for it, as it was an attack for all
    clients once. `version` is the only one that is offered.
    """
    context = ssl.create_default_context(cafile=str(authority_file()))
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0x80)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context

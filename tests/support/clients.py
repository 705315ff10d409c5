"""Client libraries, each reduced to the calls that the tests need."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from websockets.sync.client import ClientConnection, connect, unix_connect

from support.certificates import authority_file, client_context

if TYPE_CHECKING:
    from support.server import Server

SCRIPTS = Path(__file__).resolve().parent.parent / "clients"


def websocket(server: Server, path: str, **options: Any) -> ClientConnection:
    """Connect with the synchronous client of `websockets`; use as a context manager."""
    options.setdefault("max_size", None)
    # A proxy in front has no kind of server, and no TLS here.
    if getattr(server.kind, "tls", False):
        # With TLS 1.3 this client breaks its own connection now and then: one of its threads reads
        # the session tickets while another writes the request (see docs/servers/tls.md).
        options["ssl"] = client_context(ssl.TLSVersion.TLSv1_2)
    # A test that waits longer than this has failed anyway.
    options.setdefault("open_timeout", 60)
    options.setdefault("close_timeout", 60)
    options.setdefault("ping_timeout", None)
    if isinstance(server.address, str):
        return unix_connect(server.address, server.url(path), **options)
    return connect(server.url(path), proxy=None, **options)


def node(script: str, url: str, **arguments: object) -> Any:
    """Run tests/clients/<script>.js and return the JSON value that it prints."""
    done = subprocess.run(
        ["node", str(SCRIPTS / f"{script}.js"), url, json.dumps(arguments)],
        env={**os.environ, "NODE_EXTRA_CA_CERTS": str(authority_file())},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stderr == ""
    return json.loads(done.stdout)

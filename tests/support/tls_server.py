"""
Servers that encrypt and have no command of their own:

    tls_server.py werkzeug|cheroot|gevent|eventlet MODULE PORT CERTIFICATE
"""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import sys
from importlib import import_module

Address = tuple[str, int]


def werkzeug(module: str, address: Address, certificate: str) -> None:
    """Run Werkzeug's development server."""
    from werkzeug.serving import run_simple

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    run_simple(
        *address,
        import_module(module).application,
        threaded=True,
        ssl_context=_context(certificate),
    )


def cheroot(module: str, address: Address, certificate: str) -> None:
    """Run cheroot with two worker threads."""
    from cheroot.ssl.builtin import BuiltinSSLAdapter
    from cheroot.wsgi import Server

    # Its own five overflow where sixty connect at once, and the other clients wait for seconds.
    server = Server(
        address, import_module(module).application, numthreads=2, request_queue_size=128
    )
    server.ssl_adapter = BuiltinSSLAdapter(certificate, certificate)
    # Its one thread for handshakes gives up on a client that a busy machine keeps from answering.
    server.timeout = 20
    with contextlib.suppress(KeyboardInterrupt):
        server.safe_start()


def gevent(module: str, address: Address, certificate: str) -> None:
    """Run gevent.pywsgi in a patched process."""
    from gevent import monkey

    monkey.patch_all()
    from gevent.pywsgi import WSGIServer

    application = import_module(module).application
    WSGIServer(address, application, log=None, certfile=certificate).serve_forever()


def eventlet(module: str, address: Address, certificate: str) -> None:
    """Run eventlet.wsgi in a patched process."""
    import eventlet

    eventlet.monkey_patch()
    from eventlet import wsgi

    listener = eventlet.wrap_ssl(eventlet.listen(address), certfile=certificate, server_side=True)
    wsgi.server(listener, import_module(module).application, log_output=False)


def _context(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    name, module, port, certificate = sys.argv[1:]
    serve = {"werkzeug": werkzeug, "cheroot": cheroot, "gevent": gevent, "eventlet": eventlet}[name]
    serve(f"{module}.wsgi", ("127.0.0.1", int(port)), certificate)

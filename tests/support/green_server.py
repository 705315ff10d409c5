"""
The servers that gevent and eventlet bring along, as a script:

    green_server.py gevent|eventlet patched|plain MODULE PORT

`patched` patches the standard library first thing, as their documentation says; `plain` not at all.
"""

from __future__ import annotations

import sys
from importlib import import_module


def main(library: str, how: str, module: str, port: int) -> None:
    """Serve the project until a signal ends it."""
    if library == "gevent":
        if how == "patched":
            from gevent import monkey

            monkey.patch_all()
        from gevent.pywsgi import WSGIServer

        application = import_module(f"{module}.wsgi").application
        WSGIServer(("127.0.0.1", port), application, log=None).serve_forever()
    else:
        import eventlet

        if how == "patched":
            eventlet.monkey_patch()
        from eventlet import wsgi

        application = import_module(f"{module}.wsgi").application
        wsgi.server(eventlet.listen(("127.0.0.1", port)), application, log_output=False)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))

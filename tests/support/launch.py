"""Starts servers that have no command of their own, or a proxy in front of one that has."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

NGINX = """
daemon off; master_process off; worker_processes 1;
pid {folder}/nginx.pid; error_log {folder}/nginx.log warn;
events {{ worker_connections 2048; }}
http {{
    # The tests read plain responses to the end of the stream.
    access_log off; keepalive_timeout 0;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $upgrade {{ default upgrade; "" close; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            {location}
        }}
    }}
}}
"""

UWSGI = """\
uwsgi_param QUERY_STRING $query_string;
uwsgi_param REQUEST_METHOD $request_method;
uwsgi_param CONTENT_TYPE $content_type;
uwsgi_param CONTENT_LENGTH $content_length;
uwsgi_param REQUEST_URI $request_uri;
uwsgi_param PATH_INFO $document_uri;
uwsgi_param SERVER_PROTOCOL $server_protocol;
uwsgi_param HTTPS $https if_not_empty;
uwsgi_param REMOTE_ADDR $remote_addr;
uwsgi_param REMOTE_PORT $remote_port;
uwsgi_param SERVER_PORT $server_port;
uwsgi_param SERVER_NAME $server_name;
uwsgi_pass unix:{folder}/socket;
"""
# As `websocket_doctor --proxy nginx` writes it.
HTTP = """\
proxy_pass http://unix:{folder}/socket:;
proxy_http_version 1.1;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection $upgrade;
proxy_set_header Host $http_host;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header X-Forwarded-For $remote_addr;
"""


# Silence after which a server hangs up.
_PATIENCE_S = int(os.environ.get("LAUNCH_PATIENCE", "20"))


def werkzeug(module: str, port: str, *options: str) -> None:
    """Run Werkzeug's development server."""
    from werkzeug.serving import WSGIRequestHandler, run_simple

    # Browsers speak HTTP/1.1, whatever the server answers; requests are not logged.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    run_simple(
        "127.0.0.1",
        int(port),
        import_module(module).application,
        threaded="--one-thread" not in options,
        request_handler=WSGIRequestHandler,
    )


def cheroot(module: str, port: str) -> None:
    """Run cheroot with a single worker thread."""
    from cheroot.wsgi import Server

    server = Server(("127.0.0.1", int(port)), import_module(module).application, numthreads=1)
    server.timeout = _PATIENCE_S
    # It hands Ctrl-C on when it has stopped.
    with contextlib.suppress(KeyboardInterrupt):
        server.safe_start()


def waitress(module: str, port: str, *options: str) -> None:
    """Run waitress with a single worker thread; further options are `name=number`."""
    from waitress import serve

    # With a single thread it warns of each request that has to wait.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    serve(
        import_module(module).application,
        host="127.0.0.1",
        port=int(port),
        threads=1,
        channel_timeout=_PATIENCE_S,
        cleanup_interval=1,
        **{name: int(value) for name, _, value in (option.partition("=") for option in options)},
    )


def nginx(protocol: str, folder: str, port: str, *behind: str) -> None:
    """Start nginx and become the server behind it, which listens at a Unix socket."""
    location = {"uwsgi": UWSGI, "http": HTTP}[protocol].format(folder=folder)
    configuration = Path(folder) / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, port=port, location=location))
    subprocess.Popen(["nginx", "-c", str(configuration), "-e", f"{folder}/nginx.log"])
    os.execv(behind[0], behind)


if __name__ == "__main__":
    # As `python -m` does: the project is in the current folder.
    sys.path.insert(0, os.getcwd())
    name, *arguments = sys.argv[1:]
    {"werkzeug": werkzeug, "cheroot": cheroot, "waitress": waitress, "nginx": nginx}[name](
        *arguments
    )

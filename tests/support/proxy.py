"""Real proxies in front of a server, each on a loopback port with a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from support.forked import run_django
from support.server import free_port
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.raw_peer import Address
    from support.server import Server

APPS = ["dwebsocket", "django.contrib.auth", "django.contrib.contenttypes"]

NGINX = """\
daemon off;
user root;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log info;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{snippet}
}}
"""
CADDY = """\
{{
    admin off
    auto_https off
}}
{snippet}
"""
APACHE = """\
ServerRoot {folder}
ServerName localhost
PidFile {folder}/pid
ErrorLog {folder}/error.log
Listen 127.0.0.1:{port}
{short}User www-data
Group www-data
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule headers_module {modules}/mod_headers.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
{snippet}
"""
APACHE_MODULES = "/usr/lib/apache2/modules"


def doctor(
    *arguments: str, settings: Mapping[str, object] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `websocket_doctor` on the test project."""
    values = {"INSTALLED_APPS": APPS, **(settings or {})}
    return run_django("websocket_doctor", *arguments, settings=values)


class Proxy:
    """
    A proxy that runs; use as a context manager. Has the attributes of a server that peers need.

    Args:
        kind: "nginx", "caddy" or "apache".
        server: The server behind it, or its address.
        snippet: The configuration, with `{listen}` and `{upstream}` in it; what the doctor prints
            when None.
        timeout: Seconds of silence after which the doctor's snippet lets it cut a connection.
    """

    def __init__(
        self,
        kind: str,
        server: Server | str,
        *,
        snippet: str | None = None,
        timeout: float = 60,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.kind = kind
        if isinstance(server, str):
            self.upstream = server
        elif isinstance(server.address, str):
            self.upstream = f"unix:{server.address}"
            # Apache's children are another user.
            server.folder.chmod(0o755)
        else:
            self.upstream = "{}:{}".format(*server.address)
        self.folder = Path(tempfile.mkdtemp(prefix=f"dws-{kind}-"))
        self.folder.chmod(0o755)
        self.port = free_port()
        # Apache's own timeout counts too, when it is the longer one.
        self.short = f"Timeout {int(timeout)}\n" if timeout < 60 else ""
        self.address: Address = ("127.0.0.1", self.port)
        listen = f"127.0.0.1:{self.port}"
        if snippet is None:
            done = doctor(
                f"--proxy={kind}",
                f"--listen={listen}",
                f"--upstream={self.upstream}",
                f"--proxy-timeout={timeout}",
                settings=settings,
            )
            assert done.returncode == 0, done.stderr
            self.snippet = done.stdout
        else:
            self.snippet = snippet.replace("{listen}", listen).replace("{upstream}", self.upstream)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """The value for the Host header."""
        return f"127.0.0.1:{self.port}"

    def url(self, path: str, scheme: str = "ws") -> str:
        """Return the address of a path."""
        return f"{scheme}://{self.host}{path}"

    def commands(self) -> tuple[list[str], list[str]]:
        """Write the configuration; return how to check it and how to run it."""
        whole = {"nginx": NGINX, "caddy": CADDY, "apache": APACHE}[self.kind].format(
            folder=self.folder,
            port=self.port,
            modules=APACHE_MODULES,
            short=self.short,
            snippet=self.snippet,
        )
        config = self.folder / "config"
        config.write_text(whole)
        if self.kind == "nginx":
            run = ["nginx", "-p", str(self.folder), "-e", str(self.folder / "error.log")]
            run += ["-c", str(config)]
            return [*run, "-t"], run
        if self.kind == "caddy":
            which = ["--config", str(config), "--adapter", "caddyfile"]
            return ["caddy", "validate", *which], ["caddy", "run", *which]
        run = ["apache2", "-f", str(config)]
        return [*run, "-t"], [*run, "-DFOREGROUND"]

    def __enter__(self) -> Proxy:  # noqa: PYI034
        check, run = self.commands()
        env = {
            **os.environ,
            "HOME": str(self.folder),
            "XDG_DATA_HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder),
            "PATH": f"{os.environ['PATH']}:/usr/sbin",
        }
        try:
            checked = subprocess.run(check, env=env, capture_output=True, text=True, check=False)
            assert checked.returncode == 0, f"{self.snippet}\n{checked.stdout}{checked.stderr}"
            with (self.folder / "output").open("ab") as output:
                self.process = subprocess.Popen(
                    run, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    start_new_session=True,
                )  # fmt: skip
            eventually(self._listens, 60, f"{self.kind} listens")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _listens(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"{self.kind} ended: {self.log()}")
        with contextlib.suppress(OSError), socket.create_connection(self.address, 1):
            return True
        return False

    def log(self) -> str:
        """Return its log."""
        names = ("output", "error.log")
        files = [self.folder / name for name in names if (self.folder / name).exists()]
        return "".join(file.read_text(errors="replace") for file in files)

    def stop(self) -> None:
        """End it with all its processes."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)

"""uvicorn with the protocol of this package and an application without a Django project."""

from __future__ import annotations

from support.server import Kind, Server

PLAIN = "project.plain_asgi:application"


def plain_kind(
    loop: str = "asyncio", http: str = "h11", *options: str, application: str = PLAIN
) -> Kind:
    """Make a kind of it; `options` are further ones of uvicorn."""
    command = (
        "{python} -m uvicorn --port {port} --log-level info "
        f"--ws dwebsocket.uvicorn:WebSocketProtocol --loop {loop} --http {http} {application}"
    )
    name = application.partition(":")[0].rpartition("_")[0].rpartition(".")[2]
    return Kind(f"uvicorn-{name}-{loop}-{http}", "asgi", (*command.split(), *options), alone=True)


def plain_server(kind: Kind, **environment: str) -> Server:
    """Make a server of it, which is not started yet."""
    server = Server(kind, probe="/pid/", env=environment)
    del server.env["DJANGO_SETTINGS_MODULE"]
    return server

"""Users of the project under test."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.server import Server


def sign_in(server: Server, name: str = "mia") -> dict[str, str]:
    """Log in by a plain request; return the headers of that browser."""
    response = server.get(f"/log-in/{name}/")
    assert response.status == 200, response
    cookies = [value.split(";")[0] for value in response.header_all("Set-Cookie")]
    return {"Cookie": "; ".join(each for each in cookies if each.startswith("sessionid="))}

"""Which of the parts that pip does not bring are here; tests/setup installs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.server import CACHE, TESTS

if TYPE_CHECKING:
    from support.server import Kind

SUITE = CACHE / "autobahn"


def has_program(*names: str) -> bool:
    """Whether programs are on the path, or where Debian puts those of administrators."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    return all(shutil.which(name, path=path) for name in names)


def postgresql() -> Path | None:
    """Give the folder of the newest PostgreSQL server's programs, None without any."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3])
    )
    return found[-1].parent if found else None


def psycopg2() -> Path:
    """Give the folder to import psycopg2 from."""
    return CACHE / "psycopg2" / str(sys.implementation.cache_tag)


def django_tenants() -> Path:
    """Give the folder to import django-tenants from."""
    return CACHE / "django-tenants"


def is_here(part: str) -> bool:
    """Whether a part is installed that a test marked `needs(part)` names."""
    match part:
        case "apache":
            return has_program("apache2")
        case "autobahn":
            return SUITE.is_dir()
        case "caddy" | "nginx" | "openssl" | "promtool":
            return has_program(part)
        case "chromium":
            return has_program("chromium", "chromedriver")
        case "grafana-schema":
            schema = TESTS / "clients/node_modules/@grafana/schema"
            return is_here("typescript") and schema.is_dir()
        case "node":
            return has_program("node") and (TESTS / "clients/node_modules/ws").is_dir()
        case "htmx":
            return all(
                (TESTS / "clients/node_modules" / name).is_dir()
                for name in ("htmx.org", "htmx-ext-ws", "htmx4", "@hotwired/turbo")
            )
        case "typescript":
            return has_program("node") and (TESTS / "clients/node_modules/.bin/tsc").exists()
        case "pgbouncer":
            return has_program(part)
        case "postgresql":
            return postgresql() is not None
        case "redis":
            return has_program("redis-server")
        case "valkey":
            return has_program("valkey-server", "valkey-cli")
        case "django-tenants":
            return django_tenants().is_dir()
        case "psycopg2":
            return psycopg2().is_dir()
    raise ValueError(f"no part is called {part}")


def require(part: str) -> None:
    """Skip when a part is not here. Prefer the marker `needs`, where the part is known before."""
    if not is_here(part):
        pytest.skip(f"{part} is missing; run tests/setup")


def require_server(kind: Kind) -> None:
    """Skip when the server that `kind` names was not installed by tests/setup."""
    if kind.folder is not None and not kind.folder.is_dir():
        pytest.skip(f"{kind.folder} is missing; run tests/setup")
    for program in kind.programs:
        if not Path(sys.executable).with_name(program).exists() and not has_program(program):
            pytest.skip(f"{program} is missing; run tests/setup")


def can_unshare() -> bool:
    """Whether this system lets us make a mount namespace."""
    unshare = shutil.which("unshare")
    return (
        unshare is not None and not subprocess.run([unshare, "-m", "true"], check=False).returncode
    )

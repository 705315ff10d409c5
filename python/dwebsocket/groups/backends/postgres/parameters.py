"""Where the database is: what connections are made with, and the address for messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dwebsocket.compat.postgresql import Library

_DEFAULT_PORT = "5432"


def connection_of(database: str) -> Any:
    """
    Returns this thread's connection, which need not be open.

    Raises:
        ImproperlyConfigured: There is no such database.
    """
    if database not in list(connections):
        raise ImproperlyConfigured(
            f"WEBSOCKET_GROUPS names the database {database!r}, which DATABASES does not have"
        )
    return connections[database]


def library(database: str) -> Library:
    """
    Returns the library that Django uses for a database.

    Raises:
        ImproperlyConfigured: There is no such database.
        ImportError: The library is not installed.
    """
    if connection_of(database).Database.__name__ == "psycopg":
        from dwebsocket.compat import psycopg

        return psycopg.LIBRARY
    from dwebsocket.compat import psycopg2

    return psycopg2.LIBRARY


def of_database(database: str) -> dict[str, Any]:
    """
    Returns the parameters with which Django connects, made anew each time: passwords may expire.

    Raises:
        ImproperlyConfigured: There is no such database, or its settings are invalid.
    """
    return dict(connection_of(database).get_connection_params())


def located(library: Library, location: str) -> dict[str, str]:
    """
    Returns the parameters of an entry of ``LOCATION``.

    Raises:
        ValueError: It is no connection string, or a part of a password stands in another place.
            The text says nothing of its content.
    """
    found = library.parse(location)
    hosts, ports = found.get("host", ""), found.get("port", "")
    name = found.get("dbname", "") if "://" in location else ""
    # A name that begins with this is that of a socket.
    is_displaced = "@" in hosts.replace(",@", ",").removeprefix("@") or "@" in name
    if is_displaced or not all(each.isdecimal() for each in ports.split(",") if each):
        raise ValueError(
            "its host, port or database cannot be read; write / @ ? # in a password as "
            "%2F %40 %3F %23"
        )
    return found


def hosts(found: Mapping[str, Any]) -> int:
    """Returns how many hosts are tried in turn, as far as the parameters have them."""
    return str(found.get("host") or found.get("hostaddr") or "").count(",") + 1


def turned(found: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Returns the parameters with another one of their hosts in front for each number."""
    if (count := hosts(found)) == 1:
        return dict(found)
    first = number % count
    lists = {key: str(found.get(key, "")).split(",") for key in ("host", "hostaddr", "port")}
    return {
        **found,
        **{
            key: ",".join(each[first:] + each[:first])
            for key, each in lists.items()
            if len(each) == count
        },
    }


def text_of(error: BaseException) -> str:
    """Returns the text of a library's error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def address(found: Mapping[str, Any]) -> str:
    """Returns host, port and database, without a password."""
    if service := found.get("service"):
        return f"the service {service!r}"
    host = found.get("host") or found.get("hostaddr") or "the default socket"
    name = found.get("dbname") or found.get("user") or ""
    return f"{host}:{found.get('port') or _DEFAULT_PORT}/{name}"


def of_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what :func:`address` needs, from an entry of ``DATABASES``."""
    return {
        **(settings.get("OPTIONS") or {}),
        **{
            key: settings[name]
            for key, name in (("host", "HOST"), ("port", "PORT"), ("dbname", "NAME"))
            if settings.get(name)
        },
    }

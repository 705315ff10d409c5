"""Where the connection that listens leads to, and by which names it is known there."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

from dwebsocket.compat.postgresql import Lost
from dwebsocket.groups.backends.postgres import parameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dwebsocket.compat.postgresql import Library
    from dwebsocket.groups.backends.contract import Backend


class Place:
    """
    The place of one backend.

    Attributes:
        channel: The project's.
        marker: The name by which listening connections are known to the server.
        key: For :mod:`~dwebsocket.groups.backends.postgres.payload`.
        timeout: The seconds for which the server may be silent.
    """

    def __init__(self, backend: Backend) -> None:
        self._alias, self._own = backend.alias, backend.settings
        self.timeout = backend.settings.timeout
        self.key = backend.project_key("postgres")
        # Secret: only those who know it can listen, and the server shows it to no other user.
        self.channel = f"dwebsocket_{backend.project_key('postgres channel').hex()[:32]}"
        # Every user of the server can see this one.
        self.marker = f"dwebsocket {backend.project_key('postgres marker').hex()[:16]}"

    def connect_to(self, attempt: int) -> tuple[Library, Mapping[str, object], str | None]:
        """
        Returns what to connect with, and the role to take on.

        Raises:
            Lost: The settings are invalid.
        """
        own, turn = self._own, attempt
        try:
            library = parameters.library(own.database)
            found = parameters.of_database(own.database)
            if own.location:
                turn, index = divmod(attempt, len(own.location))
                found = {**found, **parameters.located(library, own.location[index])}
        except ValueError as error:
            raise Lost(f"WEBSOCKET_GROUPS[{self._alias!r}]['LOCATION']: {error}") from None
        except (ImportError, ImproperlyConfigured) as error:
            raise Lost(str(error)) from error
        # All the time of an attempt may pass at the first of several hosts: a machine that is off.
        found = {**parameters.turned(found, turn), "client_encoding": "UTF8"}
        options = parameters.connection_of(own.database).settings_dict.get("OPTIONS") or {}
        return library, found, options.get("assume_role")

    @functools.cached_property
    def address(self) -> str:
        """Host, port and database, without a password."""
        own = self._own
        try:
            library = parameters.library(own.database)
            found = parameters.of_database(own.database)
            located = [parameters.located(library, each) for each in own.location] or [{}]
        except (ValueError, ImportError, ImproperlyConfigured):
            # The error that is told anyway.
            return f"the database {own.database!r}"
        return ", ".join(parameters.address({**found, **each}) for each in located)

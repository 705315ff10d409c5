"""The backend: what the other modules do, in the calls that every backend has."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured

from dwebsocket import _core
from dwebsocket.compat.postgresql import Lost
from dwebsocket.compat.system import monotonic
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import reports
from dwebsocket.groups.postgres import future, parameters, problems
from dwebsocket.groups.postgres.history import Reading
from dwebsocket.groups.postgres.listener import CannotListen, Host, Listener
from dwebsocket.groups.postgres.presence import Presence
from dwebsocket.groups.postgres.publishing import CannotPublish, Publisher
from dwebsocket.groups.recorded import HistoryBackend

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from dwebsocket.compat.postgresql import Library
    from dwebsocket.conf.group_settings import BackendSettings
    from dwebsocket.groups.history import Log, Position

_log = logging.getLogger("dwebsocket")


class Backend(HistoryBackend, Presence):
    """
    Publishes on Django's connection to ``DATABASE``, and listens on one of its own.

    ``LOCATION`` has connection strings for the latter, tried in turn; what they leave out is taken
    from ``DATABASES``. Without one, all is taken from there.
    """

    waits = True
    is_sealed = True

    def __init__(self, alias: str, own: BackendSettings) -> None:
        """As :meth:`dwebsocket.groups.backend.Backend.__init__`."""
        super().__init__(alias, own)
        self._host = _Host(self)
        self._listener = Listener(self._host)
        self._publisher = Publisher(own.database, self._host.channel, self._host.key, own.timeout)

    def publish(self, name: str, envelope: bytes) -> None:
        """
        As :meth:`dwebsocket.groups.backend.Backend.publish`, when the present transaction commits.

        A connection that is dead is made anew, once, outside of a transaction.

        Raises:
            GroupUnavailable: The database does not take it. A transaction cannot go on then.
        """
        try:
            self._publisher.publish(name, envelope)
        except CannotPublish as error:
            raise self.unavailable(str(error)) from error.__cause__

    async def apublish(self, name: str, envelope: bytes) -> None:
        """
        As :meth:`publish`, on the thread and the connection that the task's ORM uses.

        Raises:
            GroupUnavailable: As :meth:`publish`.
        """
        await sync_to_async(self.publish)(name, envelope)

    def append(self, name: str, envelope: bytes, limits: tuple[int, float]) -> None:
        """
        As :meth:`dwebsocket.groups.HistoryBackend.append`, when the present transaction commits.

        Raises:
            GroupUnavailable: As :meth:`publish`.
        """
        try:
            self._publisher.append(name, envelope, limits)
        except CannotPublish as error:
            raise self.unavailable(str(error)) from error.__cause__

    async def aappend(self, name: str, envelope: bytes, limits: tuple[int, float]) -> None:
        """
        As :meth:`append`, on the thread and the connection that the task's ORM uses.

        Raises:
            GroupUnavailable: As :meth:`publish`.
        """
        await sync_to_async(self.append)(name, envelope, limits)

    def read_log(self, name: str, after: Position | None, limits: tuple[int, float]) -> Log:
        """
        As :meth:`dwebsocket.groups.HistoryBackend.read_log`, on the connection that listens.

        So it neither sees nor ends a transaction of Django's.

        Raises:
            GroupUnavailable: As :meth:`subscribe`.
        """
        deadline = monotonic() + self.settings.timeout
        self.subscribe(name)
        wanted = self._listener.read(Reading(name, after, *limits))
        future.wait(wanted, deadline - monotonic())
        found: Log = self._result(wanted)
        return found

    async def aread_log(self, name: str, after: Position | None, limits: tuple[int, float]) -> Log:
        """
        As :meth:`read_log`, without blocking the event loop.

        Raises:
            GroupUnavailable: As :meth:`subscribe`.
        """
        deadline = monotonic() + self.settings.timeout
        await self.asubscribe(name)
        wanted = self._listener.read(Reading(name, after, *limits))
        await future.wait_in_loop(wanted, deadline - monotonic())
        found: Log = self._result(wanted)
        return found

    def catch_up(self, name: str) -> None:
        """
        As :meth:`dwebsocket.groups.HistoryBackend.catch_up`.

        Raises:
            GroupUnavailable: As :meth:`subscribe`.
        """
        super().catch_up(name)
        # The listener reports when messages are missing.
        self._listener.look()

    async def acatch_up(self, name: str) -> None:
        """
        As :meth:`catch_up`, without blocking the event loop.

        Raises:
            GroupUnavailable: As :meth:`subscribe`.
        """
        await super().acatch_up(name)
        self._listener.look()

    async def awaits_commit(self) -> bool:
        """As :meth:`dwebsocket.groups.backend.Backend.awaits_commit`, of the task's ORM."""
        return bool(await sync_to_async(self._publisher.is_in_transaction)())

    def subscribe(self, name: str) -> None:
        """
        Listens, to all groups of the project at once.

        Raises:
            GroupUnavailable: As :meth:`dwebsocket.groups.backend.Backend.subscribe`.
        """
        if (up := self._listener.listening()) is not None:
            future.wait(up, self.settings.timeout)
            self._result(up)

    async def asubscribe(self, name: str) -> None:
        """
        As :meth:`subscribe`, without blocking the event loop.

        Raises:
            GroupUnavailable: As :meth:`subscribe`.
        """
        if (up := self._listener.listening()) is not None:
            await future.wait_in_loop(up, self.settings.timeout)
            self._result(up)

    def subscribe_soon(self, name: str) -> None:
        """As :meth:`dwebsocket.groups.backend.Backend.subscribe_soon`. The listener does it."""
        if (up := self._listener.listening()) is not None:
            up.add_done_callback(self._on_attempt)

    def _on_attempt(self, up: Future[None]) -> None:
        try:
            self._result(up)
        except GroupUnavailable as error:
            self._warn(error)

    def count(self, name: str) -> int:
        """
        Asks all processes that listen. One that does not answer in time is left out.

        Raises:
            GroupUnavailable: As :meth:`dwebsocket.groups.backend.Backend.count`.
        """
        found = self._listener.counts.known(name)
        if found is None:
            self.subscribe(name)
            wanted = self._want(name)
            future.wait(wanted, self.settings.timeout)
            found = self._result(wanted)
        return int(found)

    async def acount(self, name: str) -> int:
        """
        As :meth:`count`, without blocking the event loop.

        Raises:
            GroupUnavailable: As :meth:`count`.
        """
        found = self._listener.counts.known(name)
        if found is None:
            await self.asubscribe(name)
            wanted = self._want(name)
            await future.wait_in_loop(wanted, self.settings.timeout)
            found = self._result(wanted)
        return int(found)

    @property
    def address(self) -> str:
        """Host, port and database of the connections that publish; empty without ``DATABASE``."""
        try:
            database = parameters.connection_of(self.settings.database).settings_dict
        except ImproperlyConfigured:
            # A report of a lost server must not fail because tests have changed DATABASES since.
            return ""
        return parameters.address(parameters.of_settings(database))

    @property
    def lag(self) -> float | None:
        """That of the last query on the connection that listens, after which messages come."""
        return self._listener.lag

    def problems(self, *, deploy: bool) -> list[str]:
        """
        As :meth:`dwebsocket.groups.backend.Backend.problems`.

        With ``deploy`` it listens on one connection and notifies on another, and so finds a pooler
        that swallows ``LISTEN``; it looks for the table, too. That takes a few times ``TIMEOUT``.
        """
        found = problems.of_settings(self.settings)
        return found or (problems.of_servers(self._host, self.settings) if deploy else [])

    def stop(self) -> None:
        """
        Closes the connection that listens, soon. The next use opens another.

        Groups have no presence from then on.
        """
        self.end_presence()
        self._listener.stop()

    def _start_reports(self) -> None:
        # The listener does it.
        pass

    def _want(self, name: str) -> Future[int]:
        wanted = self._listener.counts.want(name)
        self._listener.look()
        return wanted

    def _result(self, found: Future[Any]) -> Any:
        """
        Returns the result of a future that was waited for.

        Raises:
            GroupUnavailable: It has none, or an error.
        """
        if not found.done():
            raise self._cannot_listen(f"no answer within {self.settings.timeout:g} s")
        try:
            return found.result()
        except CannotListen as error:
            raise self._cannot_listen(str(error)) from None

    def _cannot_listen(self, reason: str) -> GroupUnavailable:
        return GroupUnavailable(f"groups of {self.alias!r} at {self._host.address}: {reason}")


class _Host(Host):
    """The part of its backend that the listener uses."""

    def __init__(self, owner: Backend) -> None:
        self._backend = owner
        self.timeout = owner.settings.timeout
        self.keeps_history = bool(owner.settings.history)
        self.key = owner.project_key("postgres")
        # Secret: only those who know it can listen, and the server shows it to no other user.
        self.channel = f"dwebsocket_{owner.project_key('postgres channel').hex()[:32]}"
        # Every user of the server can see this one.
        self.marker = f"dwebsocket {owner.project_key('postgres marker').hex()[:16]}"

    def connect_to(self, attempt: int) -> tuple[Library, Mapping[str, object], str | None]:
        """As :meth:`Host.connect_to`."""
        own = self._backend.settings
        try:
            library = parameters.library(own.database)
            found = parameters.of_database(own.database)
            if own.location:
                dsn = own.location[attempt % len(own.location)]
                found = {**found, **library.parse(dsn)}
        except ValueError as error:
            raise Lost(f"WEBSOCKET_GROUPS[{self._backend.alias!r}]['LOCATION']: {error}") from None
        except (ImportError, ImproperlyConfigured) as error:
            raise Lost(str(error)) from error
        options = parameters.connection_of(own.database).settings_dict.get("OPTIONS") or {}
        return library, {**found, "client_encoding": "UTF8"}, options.get("assume_role")

    @functools.cached_property
    def address(self) -> str:  # type: ignore[override]
        """Host, port and database of the connection that listens."""
        own = self._backend.settings
        try:
            library = parameters.library(own.database)
            found = parameters.of_database(own.database)
            located = [library.parse(each) for each in own.location] or [{}]
        except (ValueError, ImportError, ImproperlyConfigured):
            # The error that is told anyway.
            return f"the database {own.database!r}"
        return ", ".join(parameters.address({**found, **each}) for each in located)

    def deliver(self, name: str, envelope: bytes) -> bool:
        """As :meth:`Host.deliver`."""
        return self._backend.deliver(name, envelope)

    def deliver_at(self, name: str, at: Position, envelope: bytes) -> None:
        """As :meth:`Host.deliver_at`."""
        self._backend.deliver_at(name, at, envelope)

    def catch_up_soon(self, *names: str) -> None:
        """As :meth:`Host.catch_up_soon`."""
        self._backend.catch_up_soon(*names)

    def has_history(self, name: str) -> bool:
        """As :meth:`Host.has_history`."""
        return self._backend.settings.kept(name) is not None

    def members(self, name: str) -> int:
        """As :meth:`Host.members`."""
        return self._backend.groups.count(name)

    def wants(self, name: str, envelope: bytes | None = None) -> bool:
        """As :meth:`Host.wants`."""
        if self._backend.groups.count(name):
            return True
        if envelope is None:
            return self._backend.exchanges_presence and self._backend.exchange.wants(name)
        # All that listen answer: the one that asks knows how many there are.
        return _core.Exchange.is_message(envelope)

    def names(self) -> list[str]:
        """As :meth:`Host.names`."""
        return [name for name, _ in self._backend.groups.counts()]

    def report(self, kind: str, texts: list[str]) -> None:
        """As :meth:`Host.report`."""
        if kind in ("lost", "regained"):
            self._backend.groups.note(kind)
        reports.report(self._backend, kind, texts)

    def count_unreadable(self) -> None:
        """As :meth:`Host.count_unreadable`."""
        self._backend.groups.note("unreadable")

    def report_unreadable(self, name: str, reason: str) -> None:
        """As :meth:`Host.report_unreadable`."""
        _log.error(
            "groups of %r at %s: a message to %r could not be read from the table: %s",
            *(self._backend.alias, self._backend.address, name, reason),
        )

    def report_members(self) -> None:
        """As :meth:`Host.report_members`."""
        while (notice := self._backend.groups.take_notice(0)) is not None:
            self.report(*notice)

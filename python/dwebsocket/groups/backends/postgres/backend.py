"""The backend: what the other modules do, in the calls that every backend has."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from dwebsocket import _core
from dwebsocket.api.waiting import loop_hub
from dwebsocket.api.waiting.steps import Call, arun, run
from dwebsocket.compat.system import monotonic
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups.backends.postgres import future, parameters, payload, problems
from dwebsocket.groups.backends.postgres.history import Reading
from dwebsocket.groups.backends.postgres.listener import CannotListen, Listener
from dwebsocket.groups.backends.postgres.place import Place
from dwebsocket.groups.backends.postgres.publishing import Publisher
from dwebsocket.groups.history.recorded import HistoryBackend
from dwebsocket.groups.presence.exchanging import PresenceBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.conf.group_settings import BackendSettings
    from dwebsocket.groups.backends.contract import Member
    from dwebsocket.groups.history import Log, Position


class Backend(HistoryBackend, PresenceBackend):
    """
    Publishes on Django's connection to ``DATABASE``, and listens on one of its own.

    ``LOCATION`` has connection strings for the latter, tried in turn; what they leave out is taken
    from ``DATABASES``. Without one, all is taken from there.
    """

    waits = True
    is_sealed = True
    # With the names of group and channel it fits into `NOTIFY`: then no table is needed.
    largest_records = 4000

    def __init__(self, alias: str, own: BackendSettings) -> None:
        super().__init__(alias, own)
        place = self._place = Place(self)
        self._listener = Listener(self, place, self._wants)
        self._publisher = Publisher(self, place)

    def publish(self, name: str, envelope: bytes) -> None:
        """
        Publishes when the present transaction commits, at once outside of one.

        A connection that is dead is made anew, once, outside of a transaction.

        Raises:
            GroupUnavailable: The database does not take it. A transaction cannot go on then.
        """
        self._publisher.publish(name, envelope)

    async def apublish(self, name: str, envelope: bytes) -> None:
        """Publishes on the thread and the connection that the task's ORM uses."""
        await sync_to_async(self.publish)(name, envelope)

    def append(self, name: str, envelope: bytes, limits: tuple[int, float]) -> None:
        """Appends and publishes when the present transaction commits."""
        self._publisher.append(name, envelope, limits)

    async def aappend(self, name: str, envelope: bytes, limits: tuple[int, float]) -> None:
        """Appends on the thread and the connection that the task's ORM uses."""
        await sync_to_async(self.append)(name, envelope, limits)

    def read_log(self, name: str, after: Position | None, limits: tuple[int, float]) -> Log:
        """
        Reads on the connection that listens: it neither sees nor ends a transaction of Django's.
        """
        return run(self._read_log(name, after, limits))

    async def aread_log(self, name: str, after: Position | None, limits: tuple[int, float]) -> Log:
        return await arun(self._read_log(name, after, limits))

    def _read_log(self, name: str, after: Position | None, limits: tuple[int, float]) -> Steps[Log]:
        reading = Reading(name, after, *limits)
        found: Log = yield from self._query(lambda: self._listener.read(reading))
        return found

    def _catch_up(self, name: str) -> Steps[None]:
        yield from super()._catch_up(name)
        # The listener reports when messages are missing.
        self._listener.wake()

    def has_to_commit(self) -> bool:
        """Whether this thread is in a transaction."""
        return self._publisher.is_in_transaction()

    async def awaits_commit(self) -> bool:
        """Whether the task's ORM is in a transaction."""
        return bool(await sync_to_async(self.has_to_commit)())

    def subscribe(self, name: str) -> None:
        """Listens, to all groups of the project at once. Earlier messages have come by then."""
        run(self._subscribe())

    async def asubscribe(self, name: str) -> None:
        await arun(self._subscribe())

    def holding_all(self, names: list[str]) -> Steps[None]:
        """Subscribes once: nothing is held for a single group."""
        return self._subscribe()

    def _subscribe(self) -> Steps[None]:
        # A member that joins again is not to get what was published while it was away.
        yield from self._query(self._listener.settle)

    def _query(self, ask: Callable[[], Future[Any]]) -> Steps[Any]:
        """Asks the connection that listens, and the next one if that is lost meanwhile."""
        deadline = monotonic() + self.settings.timeout
        for is_last in (False, True):
            yield from self._listen(deadline - monotonic())
            connection = self._listener.connection
            try:
                return (yield from self._found(ask(), deadline - monotonic()))
            except GroupUnavailable:
                if is_last or connection == self._listener.connection:
                    raise

    def _listen(self, seconds: float) -> Steps[None]:
        if (up := self._listener.listening()) is not None:
            yield from self._found(up, seconds)

    def subscription(self, name: str) -> int:
        """Returns the number of the connection that brings all messages; 0 without one."""
        return self._listener.connection

    def subscribe_soon(self, name: str) -> None:
        """Has the listener subscribe."""
        if (up := self._listener.listening()) is not None:
            up.add_done_callback(lambda up: self._try(self._result, up))

    def join(self, name: str, member: Member, key: bytes) -> bool:
        if not super().join(name, member, key):
            return False
        # A listener that could not connect before there was a member has ended.
        self._try(self.subscribe_soon, name)
        return True

    def count(self, name: str) -> int:
        """Asks all processes that listen. One that does not answer in time is left out."""
        return run(self._count(name))

    async def acount(self, name: str) -> int:
        return await arun(self._count(name))

    def _count(self, name: str) -> Steps[int]:
        found = self._listener.counts.known(name)
        if found is None:
            yield from self._listen(self.settings.timeout)
            found = yield from self._found(self._listener.count(name), self.settings.timeout)
        return int(found)

    def ask(self, name: str, envelope: bytes) -> int | None:
        """Publishes at once, on the connection that listens: all that listen get it."""
        return run(self._ask(name, envelope))

    async def aask(self, name: str, envelope: bytes) -> int | None:
        return await arun(self._ask(name, envelope))

    def _ask(self, name: str, envelope: bytes) -> Steps[int]:
        yield from self._listen(self.settings.timeout)
        told = self._listener.announce([self._publisher.text_of(name, envelope)])
        return int((yield from self._found(told, self.settings.timeout)))

    def publish_all(self, envelopes: list[tuple[str, bytes]]) -> None:
        if (up := self._listener.listening()) is not None:
            future.wait_in_thread(up, self.settings.timeout)
            self._result(up)
        texts = [(self._publisher.text_of(*each), each) for each in envelopes]
        # One way after the other: the parts of an answer must not overtake each other.
        for is_long, some in itertools.groupby(texts, lambda it: len(it[0]) > payload.LONGEST):
            if is_long:
                self._publish_long(envelope for _, envelope in some)
            else:
                told = self._listener.announce([text for text, _ in some])
                future.wait_in_thread(told, self.settings.timeout)
                self._result(told)

    def _publish_long(self, envelopes: Iterable[tuple[str, bytes]]) -> None:
        try:
            for name, envelope in envelopes:
                self.publish(name, envelope)
        finally:
            # This thread does not use Django's connection otherwise.
            connections[self.settings.database].close()

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
        """The lag of the last query on the connection that listens, after which messages come."""
        return self._listener.lag

    def problems(self, *, deploy: bool) -> list[str]:
        """
        Returns what is wrong with settings and database.

        With ``deploy`` it listens on one connection and notifies on another, and so finds a pooler
        that swallows ``LISTEN``; it looks for the table, too. That takes a few times ``TIMEOUT``.
        """
        found = problems.of_settings(self.settings)
        return found or (problems.of_servers(self._place, self.settings) if deploy else [])

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

    def _wants(self, name: str, envelope: bytes | None) -> bool:
        if self.groups.count(name):
            return True
        if envelope is None:
            return self.exchanges_presence and self.exchange.wants(name)
        # All that listen answer: the one that asks knows how many there are.
        return _core.Exchange.is_message(envelope)

    def _found(self, wanted: Future[Any], seconds: float) -> Steps[Any]:
        """Waits for a future, and returns its result. Raises as :meth:`_result`."""
        yield Call(future.wait, loop_hub.wait_until, wanted, seconds)
        return self._result(wanted)

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
        return GroupUnavailable(f"groups of {self.alias!r} at {self._place.address}: {reason}")

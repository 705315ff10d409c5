"""The contract of a backend whose groups know which users are present, beside :mod:`.backend`."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING
from weakref import ref

from dwebsocket import _core
from dwebsocket.api.waiting.engine_calls import await_call, wait
from dwebsocket.api.waiting.steps import Call
from dwebsocket.compat import unpatched
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups.backends import contract

if TYPE_CHECKING:
    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.conf.group_settings import BackendSettings
    from dwebsocket.groups.backends.contract import Arrival, Entered, Member

    #: What is to be published, by the names of its channels; None to release the name.
    Notes = list[tuple[str, bytes | None]]
    Question = tuple[int, _core.Call, bytes | None]

_log = logging.getLogger("dwebsocket")

# The seconds for which answers are waited for. One that is missing then is that of a process which
# has just been killed or stopped.
_TIMEOUT_S = 1.0
# The same, where it is not known how many answers there will be.
_UNCOUNTED_TIMEOUT_S = 0.4
# How often the thread looks whether its backend is still in use.
_CHECK_S = 5.0
# Its pause while nothing can be published.
_RETRY_S = 0.2


class PresenceBackend(contract.Backend):
    """
    The base class of backends whose groups may have presence.

    Processes tell each other of their users by envelopes, which go the way of all others: see
    ``src/engine/backends/exchange``. Nothing has to be kept in the server. So a subclass implements
    what :class:`~dwebsocket.groups.Backend` asks for, and no more; its :meth:`deliver` is called
    with all that comes. Beside the names of groups it publishes to names that begin with
    ``dwebsocket.presence``. These calls come from a thread of the system, also in a process that
    gevent or eventlet has patched.

    It may implement :meth:`ask` and :meth:`aask`, if the server can tell how many processes get an
    envelope: then no call waits for answers that do not come. And :meth:`publish_all`, if there is
    a quicker way than one call of :meth:`publish` after the other.

    Behind an outage, in which envelopes may have been lost, it calls :meth:`presence_interrupted`.
    If it does not, that is noticed some seconds later.

    Attributes:
        largest_records: The bytes of users in one envelope, about. An envelope with a single user
            can be larger, but not by more than 10,000 bytes.
    """

    keeps_presence = True
    largest_records = 48 * 1024

    def __init__(self, alias: str, own: BackendSettings) -> None:
        super().__init__(alias, own)
        self._exchange: _core.Exchange | None = None
        self._exchange_lock = unpatched.lock()
        self._hears_others = False

    # -- what a backend may implement ------------------------------------------------------------

    def ask(self, name: str, envelope: bytes) -> int | None:
        """
        Publishes an envelope at once, whether or not there is a transaction.

        Returns:
            The number of processes that get the envelope, with this one if it is subscribed to
            ``name``; None if that is not known.

        Raises:
            GroupUnavailable: As :meth:`publish`.
        """
        self.publish(name, envelope)
        return None

    async def aask(self, name: str, envelope: bytes) -> int | None:
        """Publishes as :meth:`ask`, and raises the same, without blocking the event loop."""
        await self.apublish(name, envelope)
        return None

    def publish_all(self, envelopes: list[tuple[str, bytes]]) -> None:
        """
        Publishes envelopes of one thread of the system, in order, at once.

        Raises:
            GroupUnavailable: As :meth:`publish`. Some of them may have been published.
        """
        for name, envelope in envelopes:
            self.publish(name, envelope)

    # -- what a backend calls --------------------------------------------------------------------

    def deliver(self, name: str, envelope: bytes) -> bool:
        if not _core.Exchange.is_message(envelope):
            return super().deliver(name, envelope)
        is_message = self.exchanges_presence and self.exchange.on_message(name, envelope)
        if not is_message:
            self.groups.note("unreadable")
        return is_message

    def presence_interrupted(self, *names: str) -> None:
        """
        Tells the other processes of the users here once more, and asks for theirs. Never waits.

        Args:
            *names: The groups; without one, all.
        """
        if self._exchange is not None:
            self._exchange.greet(list(names) or None)

    # -- for the rest of the package -------------------------------------------------------------

    @property
    def exchanges_presence(self) -> bool:
        """Whether this process takes part: by its settings, or by a room that has presence."""
        return bool(self.settings.presence) or self._exchange is not None

    def _use(self, exchange: _core.Exchange) -> None:
        """Passes messages to the exchange, in backends whose :meth:`deliver` does not."""

    @property
    def exchange(self) -> _core.Exchange:
        """The exchange of presence between this process and the others."""
        if self._exchange is None:
            presence, groups = self.presence, self.groups
            with self._exchange_lock:
                if self._exchange is None:
                    made = _core.Exchange(presence, groups, self.largest_records)
                    _start(self, made)
                    self._start_reports()
                    self._exchange = made
        return self._exchange

    def end_presence(self) -> None:
        """Tells the other processes nothing any more, for good."""
        if self._exchange is not None:
            self._exchange.stop()

    def entering(self, name: str, member: Member, visit: Arrival) -> Steps[Entered]:
        """Makes a user present, as soon as this process knows who else is there."""
        yield from self._hear_others()
        yield from self._hold(name)
        is_new = self.exchange.begin(name)
        try:
            yield from self._learn(name)
            return self.presence.enter(name, member, *visit)
        finally:
            self.exchange.end(name)
            if not is_new:
                self.release(name)

    @property
    def telling_timeout(self) -> float:
        """The whole timeout: a server that does not answer is away."""
        return self.settings.timeout

    def gathering(self, name: str) -> Steps[list[_core.Member]]:
        """A process that has users in the group knows them; another one asks those that have."""
        if self.exchange.takes_part(name):
            # The known members are right as long as the subscription is there.
            yield from self._hold(name)
            self.release(name)
            return self.presence.members(name)
        yield from self._hear_others()
        question = self.exchange.ask(name)
        try:
            yield from self._ask_all(name, question)
        finally:
            found = self.exchange.gathered(question[0])
        return found

    def _hear_others(self) -> Steps[None]:
        """Subscribes to what is for all processes, and for this one; once."""
        if self._hears_others:
            return
        self._use(self.exchange)
        channels = self.exchange.channels()
        yield from self.holding_all(channels)
        with self._exchange_lock:
            is_first, self._hears_others = not self._hears_others, True
        if not is_first:
            self._release_all(channels)

    def _learn(self, name: str) -> Steps[None]:
        while (question := self.exchange.learn(name)) is not None:
            number, call, envelope = question
            if envelope is not None:
                yield from self._ask_all(name, question)
            elif (yield Call(wait, await_call, call, self._timeout)) is None:
                self.exchange.give_up(number)
            # Where the other caller's question has failed, this one asks.

    def _ask_all(self, name: str, question: Question) -> Steps[None]:
        number, call, envelope = question
        try:
            processes: int | None = yield Call(self.ask, self.aask, name, envelope or b"")
            yield Call(wait, await_call, call, self._expect(number, processes))
        except BaseException as error:
            self.exchange.fail(number, str(error))
            raise
        self.exchange.give_up(number)

    @property
    def _timeout(self) -> float:
        return min(_TIMEOUT_S, self.settings.timeout / 2)

    def _expect(self, number: int, processes: int | None) -> float:
        if processes is None:
            return min(_UNCOUNTED_TIMEOUT_S, self._timeout)
        self.exchange.expect(number, processes)
        return self._timeout


def _start(backend: PresenceBackend, exchange: _core.Exchange) -> None:
    """Starts the thread that publishes for an exchange, as long as its backend is in use."""
    weak, process = ref(backend), os.getpid()

    def work() -> None:
        while os.getpid() == process and (notes := exchange.take(_CHECK_S)) is not None:
            if (backend := weak()) is None:
                return
            if not unpatched.call_code(partial(_publish, backend, exchange, notes)):
                unpatched.sleep(_RETRY_S)
            del backend

    def stop() -> None:
        if (backend := weak()) is not None:
            _publish(backend, exchange, exchange.stop())

    with backend.starting():
        unpatched.start_thread(
            "dwebsocket-presence", unpatched.lasting("dwebsocket-presence", work)
        )
    contract.at_exit(stop)


def _publish(backend: PresenceBackend, exchange: _core.Exchange, notes: Notes) -> bool:
    """Does what an exchange wants. False when that is not possible now."""
    envelopes = [(name, envelope) for name, envelope in notes if envelope is not None]
    try:
        if envelopes:
            backend.publish_all(envelopes)
    except GroupUnavailable:
        exchange.note_failure()
        return False
    except Exception:
        # The thread is needed for what comes later.
        _log.exception("groups of %r: other processes were not told who is present", backend.alias)
        exchange.note_failure()
        return False
    finally:
        for name, envelope in notes:
            if envelope is None:
                backend.release(name)
    return True

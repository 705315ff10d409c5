"""
Groups of all processes that use the same Redis or Valkey.

Processes publish to the server's channels, and subscribe to those of the groups that have members
in them. All of that is done by the engine: see ``src/engine/backends/redis``. Envelopes are sealed
with a key from ``SECRET_KEY``, so that others who reach the server cannot send messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

from dwebsocket import _core
from dwebsocket.api.waiting.engine_calls import await_call, wait
from dwebsocket.api.waiting.steps import Call
from dwebsocket.compat import unpatched
from dwebsocket.compat.system import monotonic
from dwebsocket.groups.backends.redis import address as redis_address
from dwebsocket.groups.history import Log
from dwebsocket.groups.history.recorded import HistoryBackend
from dwebsocket.groups.presence.exchanging import PresenceBackend

if TYPE_CHECKING:
    from dwebsocket.api.waiting.engine_calls import Outcome
    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.conf.group_settings import BackendSettings
    from dwebsocket.exceptions import GroupUnavailable
    from dwebsocket.groups.backends.contract import Member
    from dwebsocket.groups.backends.redis.address import Server
    from dwebsocket.groups.history import Position

# Characters of the key in the names of channels.
_KEY_LENGTH = 16


class Backend(HistoryBackend, PresenceBackend):
    """Publishes and subscribes with two connections to each server, opened on first use."""

    def __init__(self, alias: str, own: BackendSettings) -> None:
        """
        Makes the backend; opens no connection.

        Raises:
            ImproperlyConfigured: An invalid ``LOCATION`` or ``OPTIONS``.
        """
        super().__init__(alias, own)
        try:
            self.servers = redis_address.read(own.location, own.options)
        except ValueError as error:
            raise ImproperlyConfigured(f"WEBSOCKET_GROUPS[{alias!r}]{error}") from None
        self._start_lock = unpatched.lock()
        self._redis: _core.Redis | None = None

    @property
    def address(self) -> str:
        """The addresses, without passwords."""
        return ", ".join(map(str, self.servers))

    @property
    def lag(self) -> float | None:
        """The lag of the last PING where the subscriptions are; of several servers the longest."""
        return None if self._redis is None else self._redis.lag()

    @property
    def core(self) -> _core.Redis:
        """
        The engine's part of it.

        Raises:
            ImproperlyConfigured: The certificates of ``OPTIONS`` cannot be used.
        """
        if self._redis is None:
            with self._start_lock:
                if self._redis is None:
                    self._redis = self._start()
        return self._redis

    def _start(self) -> _core.Redis:
        servers = [self._described(server) for server in self.servers]
        certificates: _core.RedisCertificates | None = None
        if any(server.is_encrypted for server in self.servers):
            try:
                certificates = redis_address.read_certificates(self.settings.options)
            except ValueError as error:
                raise ImproperlyConfigured(f"WEBSOCKET_GROUPS[{self.alias!r}]{error}") from None
        try:
            with self.starting():
                started = _core.Redis(
                    self.groups,
                    servers,
                    self.settings.timeout,
                    certificates,
                    keeps_history=bool(self.settings.history),
                )
        except ValueError as error:
            raise ImproperlyConfigured(
                f"WEBSOCKET_GROUPS[{self.alias!r}]['OPTIONS']: {error}"
            ) from None
        if self.settings.presence:
            # A process without questions of its own answers the others, too.
            started.use_exchange(self.exchange)
        self._start_reports()
        return started

    def _use(self, exchange: _core.Exchange) -> None:
        self.core.use_exchange(exchange)

    def problems(self, *, deploy: bool) -> list[str]:
        try:
            return super().problems(deploy=deploy)
        except ImproperlyConfigured as error:
            return [f"{error}."]

    def _prefix(self, server: Server) -> str:
        # The server does not keep the channels of its databases apart.
        key = self.project_key(f"channels {server.database}").hex()[:_KEY_LENGTH]
        return f"dwebsocket:{key}:"

    def _described(self, server: Server) -> _core.RedisServer:
        options = self.settings.options
        return {
            "kind": server.kind,
            "nodes": list(server.nodes),
            "database": server.database,
            "username": server.username,
            "password": server.password,
            "service": server.service,
            "sentinel_username": options.get("sentinel_username"),
            "sentinel_password": options.get("sentinel_password"),
            "tls": server.is_encrypted,
            "prefix": self._prefix(server),
        }

    # -- publishing ------------------------------------------------------------------------------

    def publish(self, name: str, envelope: bytes) -> None:
        """Publishes, and waits until the server has it. Other green threads run meanwhile."""
        self._wait(self.core.publish(name, envelope))

    async def apublish(self, name: str, envelope: bytes) -> None:
        await self._await(self.core.publish(name, envelope))

    def ask(self, name: str, envelope: bytes) -> int | None:
        """Publishes; the server says how many processes got it."""
        return self._wait(self.core.publish(name, envelope))

    async def aask(self, name: str, envelope: bytes) -> int | None:
        return await self._await(self.core.publish(name, envelope))

    def publish_all(self, envelopes: list[tuple[str, bytes]]) -> None:
        """Publishes envelopes one after the other, without waiting for each of them."""
        calls = [self.core.publish(name, envelope) for name, envelope in envelopes]
        for call in calls:
            self._wait(call)

    # -- history ---------------------------------------------------------------------------------

    def append(self, name: str, envelope: bytes, limits: tuple[int, float]) -> None:
        """Keeps a message with its number, and publishes it, as one step of the server."""
        self._wait(self.core.record(name, envelope, limits))

    async def aappend(self, name: str, envelope: bytes, limits: tuple[int, float]) -> None:
        await self._await(self.core.record(name, envelope, limits))

    def read_log(self, name: str, after: Position | None, limits: tuple[int, float]) -> Log:
        """Reads about a MiB of the log at once."""
        call = self.core.read(name, after, limits)
        return self._log(wait(call, self.settings.timeout))

    async def aread_log(self, name: str, after: Position | None, limits: tuple[int, float]) -> Log:
        call = self.core.read(name, after, limits)
        return self._log(await await_call(call, self.settings.timeout))

    # -- subscriptions ---------------------------------------------------------------------------

    def subscribe(self, name: str) -> None:
        """Subscribes, and returns when the server has confirmed it."""
        self.hold(name)
        self.core.release(name, if_empty=False)

    async def asubscribe(self, name: str) -> None:
        await self.ahold(name)
        self.core.release(name, if_empty=False)

    def unsubscribe(self, name: str) -> None:
        """Takes a subscription back; not while there are members."""
        self.core.unsubscribe(name)

    def subscription(self, name: str) -> int:
        """Returns the number of the connection that brings a group's messages; 0 without one."""
        return self.core.subscription(name)

    def _hold(self, name: str) -> Steps[None]:
        return self.holding_all([name])

    def holding_all(self, names: list[str]) -> Steps[None]:
        """Holds them in one round trip to each server."""
        calls = self.core.subscribe(names)
        deadline = monotonic() + self.settings.timeout
        try:
            for call in calls:
                outcome = call.outcome()
                if outcome is None:
                    outcome = yield Call(wait, await_call, call, max(0.0, deadline - monotonic()))
                self._number(outcome)
        except BaseException:
            self._release_all(names)
            raise

    def hold_soon(self, name: str) -> None:
        """Holds a group. It is subscribed to when the server is there."""
        self.core.subscribe([name])

    def release(self, name: str) -> None:
        # Until then a last member that leaves does not end the subscription.
        self.core.release(name, if_empty=True)

    def subscribe_soon(self, name: str) -> None:
        self.hold_soon(name)
        self.core.release(name, if_empty=False)

    def discard(self, name: str, member: Member) -> None:
        # The engine ends the subscription after the last member, however that left.
        self.groups.leave(name, member)

    # -- counting --------------------------------------------------------------------------------

    def count(self, name: str) -> int:
        """Asks each process now."""
        return self._wait(self.core.count(name))

    async def acount(self, name: str) -> int:
        return await self._await(self.core.count(name))

    # -- waiting ---------------------------------------------------------------------------------

    def _wait(self, call: _core.Call) -> int:
        return self._number(wait(call, self.settings.timeout))

    async def _await(self, call: _core.Call) -> int:
        return self._number(await await_call(call, self.settings.timeout))

    def _number(self, outcome: Outcome) -> int:
        if not isinstance(outcome, int):
            raise self._failure(outcome)
        return outcome

    def _log(self, outcome: Outcome) -> Log:
        if not isinstance(outcome, tuple):
            raise self._failure(outcome)
        return Log(*outcome)

    def _failure(self, outcome: Outcome) -> GroupUnavailable:
        if isinstance(outcome, str):
            return self.unavailable(outcome)
        return self.unavailable(f"no reply within {self.settings.timeout:g} s")

"""``group(…)`` and ``user(…)``: a group as projects use it."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.db import transaction

from dwebsocket.api.arguments import apart, as_bytes, as_close, as_json, check_close
from dwebsocket.api.base import Base
from dwebsocket.api.waiting.steps import Call, arun, run
from dwebsocket.compat.django_commits import after_commit, is_in_transaction
from dwebsocket.conf.group_settings import DEFAULT
from dwebsocket.groups import (
    backends,
    groups_sent,
    history,
    membership_signals,
    names,
    presence,
    seats,
)
from dwebsocket.groups.history import recovering
from dwebsocket.groups.members import excluded, joinable, key_of, member_of
from dwebsocket.request import worlds

if TYPE_CHECKING:
    from dwebsocket import _core
    from dwebsocket.api.arguments import Sendable
    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.groups.backends.contract import Backend, Exclude, Member, Message
    from dwebsocket.groups.history import History, Page
    from dwebsocket.groups.members import Excluded

# Primary keys as texts: a number, or a UUID. No `id` of a WebSocket looks so.
_KEY = re.compile(r"[0-9]*|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


class Group:
    """
    A group: WebSockets of any process that get what is sent to its name.

    Made anew each time by :func:`group` or :func:`user`; equal by name and backend. Any thread,
    task and process may use it. ``Group(name, using="default")`` is the same as :func:`group`.
    """

    __slots__ = ("name", "using")

    name: str
    using: str

    def __init__(self, name: str, using: str = DEFAULT) -> None:
        """Makes a group, as :func:`group`; takes also the names that :func:`user` makes."""
        is_own = isinstance(name, str) and name.startswith(names.OWN)
        self.name = name if is_own else names.checked(name)
        self.using = using

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Group):
            return NotImplemented
        return (self.name, self.using) == (other.name, other.using)

    def __hash__(self) -> int:
        return hash((self.name, self.using))

    def __repr__(self) -> str:
        using = "" if self.using == DEFAULT else f", using={self.using!r}"
        return f"group({self.name!r}{using})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Group, (self.name, self.using))

    # -- members ---------------------------------------------------------------------------------

    def add(self, websocket: Base) -> bool:
        """
        Makes a connection of this process a member. Idempotent.

        A message that is published after this has returned, by any process, reaches it.

        Returns:
            False when the connection is over.

        Raises:
            GroupUnavailable: The backend cannot be reached; it is no member then.
            UsageError: The connection is not open yet; or in an event loop, with a backend that
                waits for a server: use :meth:`aadd`.
        """
        member = joinable(_websocket(websocket))
        return run(self._add(self._backend("aadd"), websocket, member))

    async def aadd(self, websocket: Base) -> bool:
        """
        Makes a connection a member, as :meth:`add`, without blocking the event loop.

        Raises:
            GroupUnavailable, UsageError: As :meth:`add`.
        """
        member = joinable(_websocket(websocket))
        return await arun(self._add(backends.backend(self.using), websocket, member))

    def _add(self, backend: Backend, websocket: Base, member: Member | None) -> Steps[bool]:
        if member is None:
            return False
        was_member = backend.groups.is_member(self.name, member)
        if backend.settings.kept(self.name) is not None:
            is_member = yield from recovering.add(websocket, self, member)
        else:
            is_new = membership_signals.is_new(self, member)
            key = key_of(websocket.id)
            is_member = yield Call(backend.add, backend.aadd, self.name, member, key)
            if is_new and is_member:
                yield from membership_signals.note_joined(self, websocket)
        if is_member and backend.settings.present(self.name) is not None:
            try:
                is_member = yield from presence.enter(self, websocket, member)
            except BaseException:
                if not was_member:
                    self.discard(websocket)
                raise
        return is_member

    def discard(self, websocket: Base) -> None:
        """
        Ends a membership. Idempotent, and never waits.

        A message that is published after this has returned does not reach the connection.

        Raises:
            UsageError: The connection is not open yet.
        """
        if self._discard(websocket):
            run(membership_signals.note_left(self, websocket))

    async def adiscard(self, websocket: Base) -> None:
        """
        Ends a membership, as :meth:`discard`; waits for the receivers of its signal.

        Raises:
            UsageError: As :meth:`discard`.
        """
        if self._discard(websocket):
            await arun(membership_signals.note_left(self, websocket))

    def _discard(self, websocket: Base) -> bool:
        """Ends a membership; gives whether a signal may have to follow."""
        member = member_of(_websocket(websocket))
        presence.leave(self, member)
        backends.backend(self.using).discard(self.name, member)
        return websocket._groups_noted is not None

    def joined(self, websocket: Base) -> _Joined:
        """
        Returns a context manager, sync and async, in which the connection is a member.

        Entering it raises and returns what :meth:`add` does.
        """
        return _Joined(self, websocket)

    # -- messages --------------------------------------------------------------------------------

    def send(
        self, message: Sendable, *, exclude: Excluded = None, on_commit: bool | str = False
    ) -> None:
        """
        Sends a message to every member, in every process.

        Example::

            group("room-42").send("It rains", exclude=request.websocket)

        Args:
            message: ``str`` goes out as text, ``bytes``, ``bytearray`` and ``memoryview`` as
                binary.
            exclude: A WebSocket, or the ``id`` of one, that does not get it; or several of them.
            on_commit: Send it when the present transaction of the default database commits, or of
                the one that this names; at once outside one, never after a rollback. The message is
                copied now. The commit's hook raises what this call raises.

        Raises:
            GroupUnavailable: The backend cannot take it now; no member of this process got it. When
                it timed out it may have arrived all the same.
            TypeError: No message, or nothing to exclude.
            UsageError: In an event loop, with a backend that waits for a server: use
                :meth:`asend`.
        """
        self._send(_message(message), exclude, "asend", on_commit=on_commit)

    async def asend(
        self, message: Sendable, *, exclude: Excluded = None, on_commit: bool | str = False
    ) -> None:
        """
        Sends a message to every member, as :meth:`send`, without blocking the event loop.

        With ``on_commit`` it asks for the transaction where ``sync_to_async`` runs code: on the
        thread of this task's ORM, which is the caller's within ``async_to_sync``.

        Raises:
            GroupUnavailable, TypeError: As :meth:`send`.
        """
        await self._asend(_message(message), exclude, on_commit=on_commit)

    def send_json(
        self, data: Any, *, exclude: Excluded = None, on_commit: bool | str = False, **kwargs: Any
    ) -> None:
        """
        Sends ``data`` as text of JSON, written once.

        Example::

            group("orders").send_json({"order": order.pk, "paid": True}, on_commit=True)

        Args:
            data: What :func:`json.dumps` takes; dates, decimals and UUIDs as Django writes them.
            exclude: As for :meth:`send`.
            on_commit: As for :meth:`send`.
            **kwargs: Passed on to :func:`json.dumps`.

        Raises:
            TypeError: A value that JSON cannot represent.
            GroupUnavailable, UsageError: As :meth:`send`.
        """
        self._send(as_json(data, kwargs)[0], exclude, "asend_json", on_commit=on_commit)

    async def asend_json(
        self, data: Any, *, exclude: Excluded = None, on_commit: bool | str = False, **kwargs: Any
    ) -> None:
        """
        Sends ``data`` as JSON, as :meth:`send_json`, without blocking the event loop.

        Raises:
            GroupUnavailable, TypeError: As :meth:`send_json`.
        """
        await self._asend(as_json(data, kwargs)[0], exclude, on_commit=on_commit)

    def close(self, code: int | None = 1000, reason: str | bytes | None = "") -> None:
        """
        Closes every member, in every process, after what was sent to it before.

        Args:
            code: The close code; None for 1000.
            reason: Up to 123 bytes of UTF-8.

        Raises:
            TypeError: A code that is no ``int``, or a reason that is neither text nor bytes.
            ValueError: A code that must not be sent, or a reason that does not fit.
            GroupUnavailable, UsageError: As :meth:`send`.
        """
        sent = _checked_close(code, reason)
        self._backend("aclose").close(self.name, *sent)

    async def aclose(self, code: int | None = 1000, reason: str | bytes | None = "") -> None:
        """
        Closes every member, as :meth:`close`, without blocking the event loop.

        Raises:
            TypeError, ValueError, GroupUnavailable: As :meth:`close`.
        """
        sent = _checked_close(code, reason)
        await backends.backend(self.using).aclose(self.name, *sent)

    def evict(self, whom: Any, reason: str = "", *, realm: str | None = None) -> None:
        """
        Makes members leave, in every process, without closing their connections.

        Those that are in a room are told: it has ended for them. Nothing keeps them from joining
        again but the room's ``allow``, or the view that lets them join. What this thread or task
        publishes afterwards does not reach them in rooms, nor one that is named by its ``id``, nor
        any connection of this process; a user's connections in other processes may get what is
        published at the same time. Where a message waits for a commit, so does this.

        Args:
            whom: A user, or a user's primary key: all connections of that user. A ``str`` is the
                ``id`` of a WebSocket.
            reason: A text for those in rooms.
            realm: The world that the user belongs to, as for :func:`dwebsocket.user`.

        Raises:
            TypeError, ValueError: An anonymous user, no user at all, a ``str`` that is a
                primary key, a realm for an ``id``, or a reason that is no text.
            TypeError, ValueError, UsageError, ImproperlyConfigured: The realm, as for
                :func:`dwebsocket.user`.
            GroupUnavailable, UsageError: As :meth:`send`.
        """
        named = _evicted(whom, reason, realm)
        run(self._evict(self._backend("aevict"), named, reason))

    async def aevict(self, whom: Any, reason: str = "", *, realm: str | None = None) -> None:
        """
        Makes members leave, as :meth:`evict`, without blocking the event loop.

        Raises:
            TypeError, ValueError, ImproperlyConfigured, GroupUnavailable: As :meth:`evict`.
            UsageError: The realm, as for :func:`dwebsocket.user`.
        """
        named = _evicted(whom, reason, realm)
        await arun(self._evict(backends.backend(self.using), named, reason))

    def _evict(self, backend: Backend, named: bytes | str, reason: str) -> Steps[None]:
        evict = backend.evict, backend.aevict
        yield Call(*evict, self.name, named, reason)
        if isinstance(named, bytes):
            return
        # The engine knows users in rooms only. Other connections of the user leave by a name of
        # their own: so what comes back here ends no membership that is newer than this call.
        is_later: bool = yield Call(backend.has_to_commit, backend.awaits_commit)
        yield Call(*evict, self.name, names.of_plain(named, is_for_all=is_later), "")
        if not is_later:
            yield from leave_all(self, named)

    def count(self) -> int:
        """
        Returns the number of members in all processes, at most a second old.

        Raises:
            GroupUnavailable: The backend cannot be reached.
            UsageError: In an event loop, with a backend that waits for a server: use
                :meth:`acount`.
        """
        return self._backend("acount").count(self.name)

    async def acount(self) -> int:
        """
        Returns the number of members, as :meth:`count`, without blocking the event loop.

        Raises:
            GroupUnavailable: As :meth:`count`.
        """
        return await backends.backend(self.using).acount(self.name)

    def members(self, limit: int | None = None) -> list[_core.Member]:
        """
        Returns the users that are present, those first that have joined first.

        There is one for each user, however many connections that has; for each session of anonymous
        ones, and for each connection without a session. A user who has none left stays for the
        grace, with no ``connections``.

        Example::

            names = [member.info["name"] for member in group("room-42").members()]

        Args:
            limit: The first so many; None for all.

        Raises:
            TypeError, ValueError: The limit is no number, or is negative.
            UsageError: The group has no presence; or in an event loop, with a backend that waits
                for a server: use :meth:`amembers`.
            GroupUnavailable: The backend cannot be reached.
        """
        found = run(self._members(self._backend("amembers"), "members()"))
        return found[: history.checked_limit(limit)]

    async def amembers(self, limit: int | None = None) -> list[_core.Member]:
        """
        Returns the users that are present, as :meth:`members`, without blocking the event loop.

        Raises:
            UsageError, GroupUnavailable, TypeError, ValueError: As :meth:`members`.
        """
        found = await arun(self._members(backends.backend(self.using), "members()"))
        return found[: history.checked_limit(limit)]

    def count_members(self) -> int:
        """
        Returns the number of users that are present, those within their grace among them.

        Raises:
            UsageError, GroupUnavailable: As :meth:`members`.
        """
        return len(run(self._members(self._backend("acount_members"), "count_members()")))

    async def acount_members(self) -> int:
        """
        Counts the users, as :meth:`count_members`, without blocking the event loop.

        Raises:
            UsageError, GroupUnavailable: As :meth:`members`.
        """
        return len(await arun(self._members(backends.backend(self.using), "count_members()")))

    def _members(self, backend: Backend, what: str) -> Steps[list[_core.Member]]:
        if not seats.are_present(self.using, self.name):
            presence.needs(backend.settings, self.name, what)
        return (yield from backend.gathering(self.name))

    # -- history ---------------------------------------------------------------------------------

    def history(self, limit: int | None = None, since: str | None = None) -> History:
        """
        Returns what is kept of the group, oldest first.

        Example::

            past = group("room-42").history(limit=50)
            texts = [entry.message for entry in past]
            request.websocket.join("room-42", since=past.position)

        Args:
            limit: The newest so many.
            since: A position: only what was published after it; all that is kept when it is too
                old, or of another epoch.

        Returns:
            A list of entries. Its ``position`` is where it ends, for a page that shows it and then
            joins.

        Raises:
            UsageError: The group has no history; or in an event loop, with a backend that waits for
                a server: use :meth:`ahistory`.
            GroupUnavailable: The backend cannot be reached.
            TypeError, ValueError: As their types and values say.
        """
        return run(self._history(self._backend("ahistory"), limit, since))

    async def ahistory(self, limit: int | None = None, since: str | None = None) -> History:
        """
        Returns what is kept, as :meth:`history`, without blocking the event loop.

        Raises:
            UsageError, GroupUnavailable, TypeError, ValueError: As :meth:`history`.
        """
        return await arun(self._history(backends.backend(self.using), limit, since))

    def _history(self, backend: Backend, limit: int | None, since: str | None) -> Steps[History]:
        kept = history.needs(backend.settings, self.name, "history()")
        after = None if since is None else history.read_position(since)
        most = history.checked_limit(limit)
        size = kept.size if most is None else min(most, kept.size)
        read, limits = (backend.read_history, backend.aread_history), (size, kept.seconds)
        page: Page = yield Call(*read, self.name, after, limits)
        while not page.is_last:
            page += yield Call(*read, self.name, page.reached, limits)
        return history.entries(page, size)

    def position(self) -> str:
        """
        Returns the position of the newest message, for a page that joins after what it shows.

        Raises:
            UsageError, GroupUnavailable: As :meth:`history`.
        """
        backend = self._backend("aposition")
        history.needs(backend.settings, self.name, "position()")
        return history.text_of(backend.read_history(self.name, None, (0, 0.0)).head)

    async def aposition(self) -> str:
        """
        Returns the newest position, as :meth:`position`, without blocking the event loop.

        Raises:
            UsageError, GroupUnavailable: As :meth:`history`.
        """
        backend = backends.backend(self.using)
        history.needs(backend.settings, self.name, "position()")
        return history.text_of((await backend.aread_history(self.name, None, (0, 0.0))).head)

    # -- what the calls above share --------------------------------------------------------------

    def _backend(self, twin: str) -> Backend:
        """Returns the backend, for a sync call that has ``twin``."""
        return backends.backend_for_sync(self.using, f"{self!r}.{twin}")

    def _send(
        self, message: Message, exclude: Excluded, twin: str, *, on_commit: bool | str
    ) -> None:
        exclude, keys = excluded(exclude)
        using = _transaction_of(on_commit)
        backend = self._backend(twin)
        groups_sent.note(self, message, exclude, on_commit=on_commit)
        if using is None:
            backend.send(self.name, message, keys)
        else:
            self._send_on_commit(using, message, keys)

    async def _asend(self, message: Message, exclude: Excluded, *, on_commit: bool | str) -> None:
        exclude, keys = excluded(exclude)
        backend = backends.backend(self.using)
        waits = False
        if on_commit is not False:
            # The loop's own thread has no transaction: Django does not let it use a database.
            waits = await sync_to_async(self._send_at_a_commit)(message, keys, on_commit=on_commit)
        groups_sent.note(self, message, exclude, on_commit=on_commit)
        if not waits:
            await backend.asend(self.name, message, keys)

    def _send_at_a_commit(self, message: Message, keys: Exclude, *, on_commit: bool | str) -> bool:
        """Sends it when the transaction of this thread commits; false when there is none."""
        using = _transaction_of(on_commit)
        if using is not None:
            self._send_on_commit(using, message, keys)
        return using is not None

    def _send_on_commit(self, using: str, message: Message, keys: Exclude) -> None:
        # The backend of then: a transaction may be committed in a child of this process.
        after_commit(lambda: self._backend("asend").send(self.name, message, keys), using)


def leave_all(group: Group, user: str) -> Steps[None]:
    """
    Ends the memberships of a user's connections in this process. Those in rooms stay.

    Args:
        group: The group that they leave.
        user: The user's name, as :func:`dwebsocket.groups.names.user_name` returns it.
    """
    own = backends.backend(group.using).groups
    # It knows groups, not the other way round, and a process that serves has imported it.
    found = import_module("dwebsocket.users.registry").connections_of(user)
    members = [each for each in found if own.is_member(group.name, member_of(each))]
    # Receivers of the signal may take long: first all have left.
    for each in [each for each in members if group._discard(each)]:
        yield from membership_signals.note_left(group, each)


def _transaction_of(on_commit: object) -> str | None:
    """
    Returns the alias of the database whose transaction a message has to wait for.

    None outside of a transaction. Nothing is connected to find that out: in a database that was not
    used yet there is none.
    """
    if on_commit is False:
        return None
    alias = "default" if on_commit is True else on_commit
    if not isinstance(alias, str):
        raise TypeError(
            f"on_commit must be True, False or a database's alias, not {type(on_commit).__name__}"
        )
    return alias if is_in_transaction(transaction.get_connection(alias)) else None


def _checked_close(code: object, reason: object) -> tuple[int, str]:
    """Returns a close code and its reason, which can be sent."""
    found = as_close(code, reason)
    check_close(*found)
    return found


def _evicted(whom: Any, reason: object, realm: str | None) -> bytes | str:
    """Returns the key of the member, or the name of the user, that is to leave."""
    if not isinstance(reason, str):
        raise TypeError(f"evict(reason=…) takes a text, not {type(reason).__name__}")
    if not isinstance(whom, (str, Base)):
        return names.user_name(whom, worlds.chosen_realm(realm, "evict()"))
    if isinstance(whom, str) and _KEY.fullmatch(whom):
        raise ValueError(
            f"evict() takes a str for the id of a WebSocket, and {whom!r} is none: give the "
            "user, or a primary key that is no str"
        )
    if realm is not None:
        raise ValueError(f"a realm is that of a user, and evict({whom!r}) takes a WebSocket")
    return key_of(whom if isinstance(whom, str) else whom.id)


def _message(message: Sendable) -> Message:
    return apart(message) if isinstance(message, str) else as_bytes(message)


def _websocket(websocket: object) -> Base:
    if not isinstance(websocket, Base):
        raise TypeError(f"members are WebSockets, not {type(websocket).__name__}")
    return websocket


class _Joined:
    """The result of :meth:`Group.joined`."""

    def __init__(self, group: Group, websocket: Base) -> None:
        self._group = group
        self._websocket = websocket

    def __enter__(self) -> bool:
        return self._group.add(self._websocket)

    def __exit__(self, *exception: object) -> None:
        self._group.discard(self._websocket)

    async def __aenter__(self) -> bool:
        return await self._group.aadd(self._websocket)

    async def __aexit__(self, *exception: object) -> None:
        await self._group.adiscard(self._websocket)


def group(name: str, using: str = DEFAULT) -> Group:
    """
    Returns the group of a name. Cheap: nothing is opened or looked up.

    Example::

        group(f"room-{room.pk}").send("The room closes in five minutes")

    Args:
        name: 1 to 200 characters, no control characters; not ``dwebsocket.…``.
        using: The alias of a backend in ``WEBSOCKET_GROUPS``.

    Raises:
        TypeError: The name is no ``str``.
        ValueError: A name that a group cannot have.
    """
    return of_checked(names.checked(name), using)


def of_checked(name: str, using: str = DEFAULT) -> Group:
    """Returns the group of a name that a group can have."""
    found = Group.__new__(Group)
    found.name, found.using = name, using
    return found


def user(user: object, using: str = DEFAULT, *, realm: str | None = None) -> Group:
    """
    Returns the group of all open WebSockets of a user, in every process.

    Example::

        user(order.customer).send_json({"order": order.pk, "paid": True}, on_commit=True)

    Args:
        user: A user, or the primary key of one. A text is taken as it is, as devices have names:
            it must be what ``str(user.pk)`` gives, for a UUID in lower case and with dashes.
        using: The alias of a backend in ``WEBSOCKET_GROUPS``.
        realm: The world that the user belongs to, where ``WEBSOCKET_REALM`` is set. None for that
            of the code that runs, as the setting's function gives it.

    Raises:
        TypeError: It is no user and no primary key, or the realm is no ``str``.
        ValueError: The user is anonymous or not saved, or the realm is empty or too long.
        UsageError: The present realm is not known here, so it has to be named; or one is named, and
            ``WEBSOCKET_REALM`` is not set.
        ImproperlyConfigured: ``WEBSOCKET_REALM`` is invalid, or its function gives no name.
    """
    return Group(names.of_user(user, worlds.chosen_realm(realm, "user()")), using)

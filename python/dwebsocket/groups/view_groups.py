"""The groups that a connection joins as it opens: those of its view's decorator, and its user's."""

from __future__ import annotations

import inspect
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from string import Formatter
from typing import TYPE_CHECKING, Any, final

from django.core.exceptions import ImproperlyConfigured

from dwebsocket import conf
from dwebsocket.api.waiting.steps import run
from dwebsocket.compat.system import renew_at_fork
from dwebsocket.exceptions import UsageError
from dwebsocket.groups import backends, history, holding, membership_signals, names, presence
from dwebsocket.groups.api import Group, group
from dwebsocket.groups.history.recovering import Resumption
from dwebsocket.groups.members import key_of, member_of
from dwebsocket.groups.presence import NOTHING, JoinOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dwebsocket import _core
    from dwebsocket.api.base import Base
    from dwebsocket.api.waiting.steps import Steps

    #: The decorator's argument: templates of names, or a function that returns names.
    Wanted = (
        Iterable[str | Group] | str | Group | Callable[..., Iterable[str | Group] | Group | None]
    )


class ImpossibleName(ValueError):
    """The arguments of a URL make a name that no group can have."""


class _Anonymous(Exception):
    """A template names the user, and there is none."""


class _Names(Formatter):
    """Fills in a template: ``{room}`` is an argument of the URL, ``{user.pk}`` the user's key."""

    def __init__(self, user: Any) -> None:
        self._user = user

    def get_value(self, key: int | str, args: Any, kwargs: Any) -> Any:
        if key == "user" and "user" not in kwargs:
            if self._user is None or not getattr(self._user, "is_authenticated", False):
                raise _Anonymous
            return self._user
        return super().get_value(key, args, kwargs)


def filled(template: str, args: Any, kwargs: Any, user: Any) -> str:
    """
    Fills in a template of a group's name, as ``groups`` of a decorator.

    Raises:
        UsageError: The URL has no such argument, or the template names an anonymous user.
    """
    try:
        return _Names(user).vformat(template, args, kwargs)
    except _Anonymous:
        raise UsageError(f"{template!r} names the user, and this one is anonymous") from None
    except (LookupError, AttributeError, ValueError) as error:
        raise UsageError(f"the URL has no argument for {template!r}: {error!r}") from error


@final
class ViewGroups:
    """The ``groups`` argument of a decorator."""

    __slots__ = ("_decorator", "_presence", "_wanted", "of_user", "resume")

    def __init__(
        self,
        decorator: str,
        wanted: Any,
        *,
        resume: bool = False,
        presence: Any = False,
        of_user: bool = True,
    ) -> None:
        """
        Checks the argument.

        Args:
            decorator: The decorator's name, for messages.
            wanted: Templates of names, such as ``"room-{room}"``, or groups; or a function that is
                called with the view's arguments and returns names or groups.
            resume: Whether connections join numbered, from the positions in their URLs.
            presence: Whether connections are told which users join and leave; or a function that is
                called with the view's arguments and returns the ``info`` of such a connection.
            of_user: Whether connections join the group of their user, too.

        Raises:
            TypeError: Anything else.
            ValueError: A template whose braces do not fit.
        """
        self._decorator = decorator
        if not isinstance(resume, bool):
            raise TypeError(
                f"{decorator}(resume=…) takes True or False, not {type(resume).__name__}"
            )
        self.resume = resume
        self.of_user = of_user
        if not (isinstance(presence, bool) or callable(presence)):
            raise TypeError(
                f"{decorator}(presence=…) takes True, False or a function that gives the info, "
                f"not {type(presence).__name__}"
            )
        self._presence = presence
        if isinstance(wanted, (str, Group)):
            wanted = (wanted,)
        if not callable(wanted):
            if not isinstance(wanted, Iterable) or isinstance(wanted, (bytes, dict)):
                raise TypeError(self._expected(wanted))
            wanted = tuple(wanted)
            for each in wanted:
                if not isinstance(each, (str, Group)):
                    raise TypeError(self._expected(each))
                if isinstance(each, str):
                    # A template that cannot be read is an error here, not in each handshake.
                    list(Formatter().parse(each))
        self._wanted = wanted

    def _expected(self, value: object) -> str:
        return (
            f"{self._decorator}(groups=…) takes names of groups or a function that gives them, "
            f"not {type(value).__name__}"
        )

    def _groups_of(self, request: Any, args: Any, kwargs: Mapping[str, Any]) -> list[Group]:
        wanted = self._wanted
        if callable(wanted):
            wanted = self._call("groups", wanted, request, args, kwargs)
            found = (wanted,) if isinstance(wanted, (str, Group)) else tuple(wanted or ())
            return [_group(each) for each in found]
        formatter = _Names(getattr(request, "user", None))
        groups = []
        for each in wanted:
            if isinstance(each, Group):
                groups.append(each)
                continue
            try:
                name = formatter.vformat(each, args, kwargs)
            except _Anonymous:
                continue
            except (LookupError, AttributeError, ValueError) as error:
                raise ImproperlyConfigured(
                    f"{self._decorator}(groups=[{each!r}]): the view has no argument for it: "
                    f"{error!r}"
                ) from error
            groups.append(_group(name))
        return groups

    def joins(
        self, request: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], user: str
    ) -> Joins:
        """
        Returns what one connection is to join.

        Args:
            request: The request that the view gets.
            args: The view's positional arguments.
            kwargs: Its keyword arguments.
            user: That of :class:`Joins`.

        Raises:
            ImpossibleName: The arguments make a name that no group can have.
            ImproperlyConfigured: A template has a field that the URL has no argument for.
            UsageError: A function of the project's gives a coroutine; or as :class:`Joins`.
            TypeError, ValueError: As :meth:`JoinOptions.of`.
        """
        found = self._groups_of(request, args, kwargs) if self._wanted else []
        # To join one again would send once more what the client has missed.
        groups = list(dict.fromkeys(found))
        wish = JoinOptions(watches=True) if self._presence else NOTHING
        if callable(self._presence):
            info = self._call("presence", self._presence, request, args, kwargs)
            wish = JoinOptions.of(info, presence=True)
        resumption = Resumption.of(request) if self.resume else None
        return Joins(groups, user if self.of_user else "", resumption, wish)

    def _call(self, what: str, function: Any, request: Any, args: Any, kwargs: Any) -> Any:
        found = function(request, *args, **kwargs)
        if inspect.iscoroutine(found):
            found.close()
            raise UsageError(f"{self._decorator}({what}=…) takes a sync function")
        return found


def _group(each: Any) -> Group:
    if isinstance(each, Group):
        return each
    try:
        return group(each)
    except ValueError as error:
        raise ImpossibleName(str(error)) from error


@final
class Joins:
    """The groups that one connection is to join as it opens."""

    __slots__ = (
        "_groups",
        "_held",
        "_held_recorded",
        "_is_moved",
        "_of_user",
        "_present",
        "_recorded",
        "_resumption",
        "_wish",
    )

    def __init__(
        self,
        groups: list[Group],
        user: str,
        resumption: Resumption | None = None,
        wish: JoinOptions = NOTHING,
        *,
        is_moved: bool = False,
    ) -> None:
        """
        Notes the groups.

        Args:
            groups: Those of the view's decorator.
            user: Its user, as :func:`dwebsocket.request.worlds.user_key` names it; empty for an
                anonymous one.
            resumption: With ``resume``, where the client got to before.
            wish: What the connection wants of groups with presence.
            is_moved: Whether it is in these groups already, in another process.

        Raises:
            UsageError: With ``resume``, a group that has no history; with ``presence``, groups of
                which none has presence.
        """
        self._is_moved = is_moved
        self._resumption = resumption
        if resumption is not None:
            for each in groups:
                history.needs(backends.backend(each.using).settings, each.name, "resume=True")
        self._wish = wish
        if wish.watches and groups and not any(map(presence.is_known, groups)):
            own = backends.backend(groups[0].using).settings
            presence.needs(own, groups[0].name, "presence=True")
        settings = [(each, backends.backend(each.using).settings) for each in groups]
        self._recorded = [each for each, own in settings if own.kept(each.name) is not None]
        # Groups without a history: their members become users as the others do, but are members
        # before.
        present = filter(presence.is_known, groups)
        self._present = [each for each in present if each not in self._recorded]
        self._groups = [each for each in groups if each not in self._recorded]
        aliases = list(conf.get("GROUPS")) if user else []
        self._of_user = [Group(names.of_user_key(user), alias) for alias in aliases]
        # The groups whose messages come to this process.
        self._held: holding.HeldNames = []
        self._held_recorded: holding.HeldNames = []

    def prepare(self) -> None:
        """
        Sees to it that messages for the groups come to this process. Not for event loops.

        Raises:
            GroupUnavailable: The backend of one of the decorator's groups cannot be reached. For
                the group of the user it is tried again later.
        """
        _release_dropped()
        for each in self._of_user:
            backend = backends.backend(each.using)
            backend.hold_soon(each.name)
            self._held.append((backend, [each.name]))
        self._held += run(holding.hold(self._groups))
        # Their messages come from now on, so that a backend that is away is known in time.
        self._held_recorded = run(holding.hold(self._recorded))

    def release_with(self, response: object) -> None:
        """Releases when ``response`` is freed and has neither opened a connection nor given up."""
        if self._held or self._held_recorded:
            reference = _Response(response, _dropped.append)
            reference.joins = self
            # Else it could be freed together with the response, and never be called.
            _responses.add(reference)

    def memberships(self, websocket: Base) -> list[tuple[_core.Groups, str, bytes]]:
        """Returns the memberships: the engine may begin them as it opens the connection."""
        if not self._held:
            return []
        key = key_of(websocket.id)
        return [(backend.groups, name, key) for backend, held in self._held for name in held]

    def join(self, websocket: Base) -> None:
        """
        Makes the connection, which is open now, a member if it is none. Never waits.

        Groups with a history are joined before the view's first line, and users become present.
        """
        if self._recorded or self._present:
            self._join_later(websocket)
        if not self._held:
            return
        member, key = member_of(websocket), key_of(websocket.id)
        for backend, held in self._held:
            for name in held:
                backend.join(name, member, key)
        if not self._is_moved:
            membership_signals.note_at_opening(self._groups, websocket)
        self._release_held()

    def release(self) -> None:
        """Ends what :meth:`prepare` has begun. Never waits; may be repeated."""
        self._release_held()
        self._release_recorded()

    def _release_held(self) -> None:
        held, self._held = self._held, []
        holding.release(held)

    def _release_recorded(self) -> None:
        held, self._held_recorded = self._held_recorded, []
        holding.release(held)

    def _join_later(self, websocket: Any) -> None:
        recorded, present, wish = self._recorded, self._present, self._wish
        resumption, own_id = self._resumption, websocket.id

        def join() -> Steps[None]:
            try:
                for each in (*recorded, *present):
                    options = _recovering(each, resumption, own_id)
                    yield from websocket._join([each], wish, **options)
            finally:
                self._release_recorded()

        websocket._join_recorded = join


def _recovering(group: Group, resumption: Resumption | None, own_id: str) -> dict[str, Any]:
    """Returns the options for joining a group as the view begins."""
    if resumption is None:
        return {}
    options = {"numbered": True, "since": resumption.positions.get(group.name), "tells": True}
    if resumption.former is not None:
        options |= {"former": resumption.former, "own_id": own_id}
    return options


class _Response(weakref.ref[object]):
    """
    A weak reference to a response: some middleware may answer something else and drop it.

    The callback is a function in C. The garbage collector may call it while this thread holds the
    lock of a backend.
    """

    __slots__ = ("joins",)

    joins: Joins


_responses: set[_Response] = set()
# The freed ones. The next handshake looks here.
_dropped: deque[_Response] = deque()


def _release_dropped() -> None:
    while _dropped:
        try:
            response = _dropped.popleft()
        except IndexError:
            # Another thread was faster.
            return
        _responses.discard(response)
        response.joins.release()


renew_at_fork(globals(), _responses=set, _dropped=deque)

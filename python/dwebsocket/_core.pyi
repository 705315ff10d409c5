"""The native engine. Not for projects, which use `dwebsocket.WebSocket`."""

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from datetime import datetime
from os import PathLike
from typing import Any, Literal, TypeAlias, TypedDict, final, type_check_only

__all__ = [
    "Bucket",
    "Call",
    "Carrier",
    "Compression",
    "Connection",
    "Deputy",
    "Dial",
    "Dialer",
    "Exchange",
    "FrameReader",
    "Groups",
    "History",
    "Hold",
    "Hub",
    "LocalNode",
    "Mailbox",
    "MarkedCut",
    "Member",
    "MessageFuture",
    "NextMessage",
    "Passage",
    "PendingPoll",
    "Permit",
    "Ping",
    "Post",
    "Presence",
    "Redis",
    "Seat",
    "Seats",
    "Settings",
    "Takeover",
    "Threads",
    "Tls",
    "Wait",
    "adopt",
    "adopt_moved",
    "after_fork_in_child",
    "answer",
    "buffered_bytes",
    "client_frame",
    "clock_ahead",
    "close_all",
    "depart",
    "die_of_sigterm",
    "discard",
    "drain",
    "ended",
    "event_stream_head",
    "fallback_opened",
    "frames_for",
    "has_handed_out",
    "in_room",
    "is_default",
    "is_leaving",
    "is_terminated",
    "is_token",
    "limit_buffered",
    "may_send_close_code",
    "now",
    "numbered",
    "on_exit",
    "on_terminate",
    "open_carried",
    "open_connections",
    "open_polled",
    "overview",
    "poll",
    "polling_head",
    "post",
    "prepare",
    "read_event",
    "read_join",
    "reopen",
    "response_head",
    "shut_down",
    "signal_seen",
    "step_clock",
    "unwatch_descriptor",
    "validate_handshake",
    "wait_for_none_open",
    "want_threads",
]

# Seconds until the next ping, and seconds in which nothing has come since one; None where unknown.
_Pulse: TypeAlias = tuple[float | None, float | None]
# Messages in and out, bytes in and out (on the wire, after the handshake); and what waits now:
# messages and bytes for the view, bytes for the socket.
_Traffic: TypeAlias = tuple[int, int, int, int, int, int, int]
# The members that a group can have.
_Joinable: TypeAlias = Connection | Mailbox | Seat | Deputy
# In a group with a history: its epoch, and an offset.
_Position: TypeAlias = tuple[int, int]
# A message in a log: its offset, the time in milliseconds since 1970, its data, and the keys of
# the members that did not get it.
_Logged: TypeAlias = tuple[int, int, str | bytes, list[bytes]]
# The result of `depart`.
_Departure: TypeAlias = tuple[list[tuple[int, int]], int, tuple[int, int, bool] | None]

@final
class Compression:
    """
    The parameters of permessage-deflate that one client and the server agreed on (RFC 7692).

    `str()` returns the value of `Sec-WebSocket-Extensions` in the response.
    """

    @staticmethod
    def negotiate(
        offers: str,
        *,
        threshold: int,
        level: int,
        server_no_context_takeover: bool,
        client_no_context_takeover: bool,
        server_max_window_bits: int,
        client_max_window_bits: int,
    ) -> Compression | None:
        """
        Accepts the first offer in `offers` (`Sec-WebSocket-Extensions`) that the server can meet.

        None means no compression: no offer is for permessage-deflate, or each one is malformed or
        demands what the server does not support.
        """

    @staticmethod
    def agreed(agreement: str, *, threshold: int, level: int) -> Compression:
        """
        Keeps to what another process has agreed on: its `str()`, or `Connection.agreement`.

        `ValueError` for another text.
        """

@final
class Connection:
    """
    One WebSocket. Any thread may call any method at any time.

    Calls that sleep let handlers of signals run when they are made on the main thread, and raise
    what these raise.
    """

    def hold(self, count: int, /) -> Hold:
        """
        Counts so many bytes among those that the process buffers, as held for this connection.

        Above the process's limit the connections that hold most are closed.
        """

    @staticmethod
    def never_opened() -> Connection:
        """Returns one that is over, as after a client that has vanished. Its `id` is 0."""

    @property
    def id(self) -> int:
        """A number that no other connection of this process has."""

    def as_member(self) -> Connection:
        """Returns itself: the member that it is in groups."""

    def pop(self, text_as_bytes: bool, /) -> str | bytes | None:
        """Takes the oldest message if there is one; never sleeps."""

    def owes_a_pause(self) -> bool:
        """
        Whether the caller is to let others run before it takes the next message.

        True once, after it has found messages for a millisecond without sleeping.
        """

    def take(self, timeout: float | None, text_as_bytes: bool) -> str | bytes | None:
        """
        Takes the oldest message; sleeps up to `timeout` seconds (None: for ever) if there is none.

        None means that none came in time, or that none can come: `waiting()` tells.
        """

    def take_coarse(self, time: float, text_as_bytes: bool, /) -> str | bytes | None:
        """
        Takes the oldest message; may sleep a little longer than `time` if there is none.

        Cheaper than `take` for callers that wait long and are woken often.
        """

    def post(self, message: object, text_as_bytes: bool, sender: object, /) -> bool:
        """
        Sends a `str` or `bytes` if nothing else waits for the client.

        `sender` is the connection whose view sends it, if any: while more messages wait for that
        view, a small message may be kept for the next write. Never sleeps. False means only that
        the message was not taken. A text that begins as those of groups do is never taken.
        """

    def send(
        self, message: str | bytes, *, binary: bool | None = None, timeout: float | None = None
    ) -> bool:
        """
        Queues or writes a message; False when the connection is closed.

        With `binary` None, `str` is text and `bytes` are text if they are valid UTF-8. While the
        buffer is full it sleeps up to `timeout` seconds and then raises `SendTimeout`; with None
        it never sleeps, and the client that cannot keep up is closed with 1013.
        """

    def try_send(self, message: str | bytes, *, binary: bool | None = None) -> bool | None:
        """Queues or writes a message; never sleeps: returns None when there is no room now."""

    def send_beyond(self, message: str | bytes, *, binary: bool | None = None) -> bool | None:
        """
        Sends, and never sleeps: without room the message waits beyond the buffer's size.

        Returns None then: no more is to be sent before `has_room`. A process that buffers too much
        closes the connections that hold most.
        """

    def has_room(self) -> bool:
        """Whether a small message would not have to wait for room, or nothing can be sent."""

    def send_together(self, messages: list[str | bytes]) -> int:
        """
        Sends the first ones of some messages in one write, if there is room now; returns how many.

        Never sleeps. 0 when there is no room, the connection is closed, or the first one is large:
        `send` is for that. `bytes` are binary messages.
        """

    def close(self, code: int, reason: str) -> bool:
        """Begins to close; False when it was closing already. `ValueError` for a wrong code."""

    def half_close(self, code: int, reason: str) -> bool:
        """Begins to close; messages may be sent until `close` is called, which sends this code."""

    def waiting(self) -> tuple[int, bool]:
        """The number of whole messages that wait, and whether the end has come after them."""

    def end(self) -> tuple[int, str, Literal["local", "peer", "lost"]] | None:
        """Close code, reason and the side that began, once either side began to close."""

    def ended_for(self) -> float | None:
        """Seconds since either side began to close."""

    def messages(self) -> tuple[int, int]:
        """The messages that have come from the client so far, and those taken for it."""

    def traffic(self) -> _Traffic:
        """Returns the counters of its messages and bytes, and those that wait in it."""

    def await_news(self, time: float) -> None:
        """
        Sleeps until there is a message or the end to take, for `time` seconds at most.

        Takes nothing. The GIL is free meanwhile, also when there is no time to sleep.
        """

    def descriptor(self) -> int | None:
        """
        A descriptor that is readable while a message or the unread end waits; for `select`.

        Made on first use, and always the same. None in a forked child. `OSError` when the process
        has none left.
        """

    def mark_end_read(self) -> None:
        """Marks the end as read: the callers that select on `descriptor` have received it."""

    def close_descriptor(self) -> None:
        """Closes the descriptor that `descriptor` has made, if there is one."""

    def discard(self) -> None:
        """Drops what was not taken; for a connection that is closed and whose view is over."""

    def ping(self, payload: bytes) -> bool:
        """Sends a ping, after the messages that wait. False when it cannot be queued."""

    def pong(self, payload: bytes) -> bool:
        """
        Sends an unsolicited pong (RFC 6455 section 5.5.3), after the messages that wait.

        False when it cannot be queued.
        """

    def answer_pings(self) -> None:
        """Answers the client's `{"ping":1}` by `{"pong":1}`, from now on; nobody else gets it."""

    def pass_events(self, names: list[str], /) -> None:
        """
        Names the events of rooms that pass without a view, by a :class:`Passage`.

        They do while the view listens for messages, and none waits for it.
        """

    def begin_beat(self, seconds: float) -> None:
        """
        Sends an empty text message whenever nothing was sent for so long; the first call counts.

        Other texts of blanks alone, and empty ones, get one more blank from then on.
        """

    def begin_ping(self) -> Ping | None:
        """
        Sends a ping with a number as payload, after the messages that wait.

        None when it cannot be queued now. Raises `UnsupportedServer` when it is carried.
        """

    @property
    def is_carried(self) -> bool:
        """Whether a server keeps it, and speaks its frames."""

    @property
    def latency(self) -> float | None:
        """Seconds that the last answered ping took, the engine's own ones included."""

    @property
    def pings_received(self) -> int:
        """How many pings of the peer have come."""

    def watch_pings(self, hub: Hub, token: int) -> None:
        """
        Puts `token` on the hub's list once: at the answer to a `begin_ping`, or at the end.

        If the end has come already, that is now. `unwatch_pings` takes the watch back.
        """

    def unwatch_pings(self, hub: Hub, token: int) -> None:
        """Takes back a `watch_pings` that is no longer needed."""

    def await_end(self, timeout: float | None) -> bool:
        """
        Sleeps without the GIL until either side has begun to end, `timeout` seconds at most.

        Returns whether one has.
        """

    def watch_end(self, hub: Hub, token: int) -> None:
        """Puts `token` on the hub's list once, as soon as either side has begun to end."""

    def is_awaited(self) -> bool:
        """Whether a caller waits now, for a message or for room to send one."""

    def next(self, find_hub: Callable[[], Hub], /) -> NextMessage:
        """
        An awaitable for the next message, to be awaited again and again, in any event loop.

        `find_hub` returns the hub of the running loop, whose `wake` that calls. It is called only
        when there is no message yet.
        """

    def next_now(self) -> NextMessage:
        """An awaitable for the oldest message; its result is None if there is none."""

    def is_slow_to_send(self, message: str | bytes, /) -> bool:
        """Whether sending it would hold up an event loop for more than about a millisecond."""

    def watch_inbox(self, hub: Hub, token: int) -> None:
        """Puts `token` on the hub's list once, as soon as there is a message or the end."""

    def listen(self, hub: Hub, token: int, /) -> bool:
        """
        Watches as `watch_inbox`, unless there is something to take now: then returns False.

        To be called before yielding to the hub: messages of the view are not held back meanwhile.
        """

    def count_held(self, size: int, /) -> None:
        """
        Counts bytes of former messages among what is buffered, until the next call.

        Args:
            size: Bytes that the view holds of messages whose turn has not come yet.
        """

    @property
    def is_closed_by_group(self) -> bool:
        """Whether a group has closed it."""

    @property
    def is_movable(self) -> bool:
        """Whether another process could go on with it: by its transport and its compression."""

    @property
    def agreement(self) -> str | None:
        """The parameters of its compression; None without."""

    def spare(self) -> None:
        """Leaves it out of the closes of `drain` from now on."""

    def rouse(self, hub: Hub, token: int, /) -> None:
        """Puts `token` on the hub's list at once, if a watch of `listen` is to do so later."""

    def unlisten(self, hub: Hub, token: int, /) -> bool:
        """Takes `listen` back; false if the token is on the list already, or nothing listens."""

    def halt(self) -> None:
        """Has it stand still soon, so that `give_away` need not wait for that."""

    @property
    def is_still(self) -> bool:
        """Whether it stands still, and `give_away` does not wait."""

    def go_on(self) -> None:
        """Takes `halt` back."""

    def give_away(
        self, patience: float, /
    ) -> tuple[int, bytes, bytes, list[tuple[bool, bytes]], _Pulse] | None:
        """
        Has it stand still, and returns its parts, for a process that is to go on with it.

        That takes `patience` seconds at most, while a compressed message is under way. From then on
        nothing can be sent, until `part` or `take_back`.

        Returns a descriptor, which the caller closes, bytes to be read before those of the socket,
        bytes to be sent first, messages that were not taken, each with whether it is text, and how
        its peer answers pings. None when the connection ends, cannot be moved, or does not stand
        still in time: it goes on.

        Raises:
            MemoryError: There is none for its parts. It is closed, as by `take_back`.
        """

    def part(self) -> None:
        """Ends it here, with 1012, and without a word to its peer: another process has it."""

    def take_back(self, code: int, reason: str) -> None:
        """Closes it after `give_away`: no other process has it."""

    def release(self, unsent: bytes, /) -> None:
        """Lets one of `adopt_moved` send: first these bytes, then what was sent since."""

    def watch_outbox(self, hub: Hub, token: int) -> None:
        """Puts `token` on the hub's list once, as soon as there is room or the outbox is closed."""

    def unwatch(self, hub: Hub, token: int) -> None:
        """Takes back a watch that is no longer needed."""

@final
class FrameReader:
    """Cuts the bytes from a server into frames, for clients in tests."""

    def __new__(cls) -> FrameReader: ...
    def feed(self, data: bytes) -> None:
        """Takes bytes as they arrive."""

    def next_frame(self) -> tuple[int, bytes, bool, bool] | None:
        """
        The next frame, if it is here: opcode, payload, whether it is final, its bit RSV1.

        `ValueError` for bytes that no server may send.
        """

@final
class Groups:
    """
    The groups of one backend in this process. Any thread may use it; no call waits.

    Keys of members have 16 bytes. Messages are `str` (text) or `bytes` (binary).
    """

    def __new__(cls, when_full: str, key: bytes | None = None) -> Groups:
        """
        Makes a registry without groups, and starts the engine if it does not run.

        Args:
            when_full: The policy for members that do not keep up: `close`, `drop_newest`,
                `drop_oldest` or `latest`.
            key: Seals envelopes, and refuses those without a right seal. None where others cannot
                reach the way that they take.

        Raises:
            ValueError: Another policy.
            OSError: The system gives no thread or no descriptor.
        """

    def join(self, name: str, object: _Joinable, id: bytes) -> bool | None:
        """Makes a member; true for the group's first one here, None when the member is over."""

    def leave(self, name: str, object: _Joinable) -> bool | None:
        """Ends a membership; true when it was the group's last one here, None without one."""

    def is_member(self, name: str, object: _Joinable) -> bool:
        """Whether it is a member of a group, however many groups it is in."""

    def names_of(self, object: _Joinable) -> list[str]:
        """Returns the names of a member's groups."""

    def count(self, name: str) -> int:
        """Returns the number of members of a group in this process."""

    def counts(self) -> list[tuple[str, int]]:
        """Returns all groups with members in this process, and their numbers."""

    def publish(self, name: str, message: str | bytes, exclude: list[bytes], /) -> Wait | None:
        """
        Sends a message to the members in this process, but for those with the keys in `exclude`.

        Returns a wait for room, and nothing is sent, while the engine is behind by too many
        messages.
        """

    def close(self, name: str, code: int, reason: str) -> None:
        """
        Closes the members in this process, after what was published before.

        Raises:
            ValueError: A code that must not be sent, or a reason that does not fit.
        """

    def encode(self, name: str, message: str | bytes, exclude: list[bytes]) -> bytes:
        """Returns the envelope in which a message goes to other processes, and counts it."""

    def encode_close(self, name: str, code: int, reason: str) -> bytes:
        """Returns the envelope that closes the members; raises as :meth:`close`."""

    def encode_event(self, name: str, rest: str, exclude: list[bytes], /) -> bytes:
        """Returns the envelope of a text for members of rooms, from after the room's name on."""

    def encode_eviction(self, name: str, whom: bytes | str, reason: str, /) -> bytes:
        """Returns the envelope that takes a member, by its key, or a user out of a group."""

    def encode_markers(self, name: str, tokens: list[bytes], /) -> bytes:
        """Returns the envelope of markers, each a name of 16 bytes."""

    def deliver(self, name: str, envelope: bytes) -> bool:
        """Hands an envelope to the members here; false when it is none, or its seal is wrong."""

    def offer(
        self, name: str, at: _Position, envelope: bytes, /
    ) -> Literal["taken", "behind"] | None:
        """
        Hands an envelope to the members here if it is the next one of a group with a history.

        "behind" when others are missing before it: nothing is handed out then. None when it is
        none, or its seal is wrong.
        """

    def position_of(self, name: str) -> _Position | None:
        """Returns how far the members here are; None without members, or without a history."""

    def is_whole_since(self, name: str, at: _Position, /) -> bool:
        """Whether the members here have got all messages after `at`, as far as they are."""

    def number(self, name: str, object: _Joinable, /) -> _Position | None:
        """
        Has a member get messages with their positions from now on.

        Returns how far it is; None when it is no member, or without a history.
        """

    def recorded_names(self) -> list[str]:
        """Returns the groups with a history that have members here."""

    def take_page(
        self, name: str, head: _Position, rows: list[tuple[int, int, bytes]], /
    ) -> Wait | None:
        """
        Hands the members here what is new to them in a part of the log.

        Args:
            name: The group's name.
            head: Its newest position.
            rows: What was read after the members' position, oldest first: offset, milliseconds
                since 1970, and envelope.

        Returns:
            A wait for room, and nothing is handed out, while more is published than can be
            delivered.
        """

    def read_rows(self, name: str, rows: list[tuple[int, int, bytes]], /) -> list[_Logged]:
        """Returns the messages in a part of the log, as :meth:`History.read`."""

    def enter_at(
        self, name: str, member: _Joinable, id: bytes, at: _Position, /, *, is_numbered: bool
    ) -> Literal["first", "joined", "behind", "early", "over"]:
        """
        Joins a member that has got all messages up to `at`.

        "first" when it is the first one here: later messages have to be read. "behind" when there
        are later messages, which it has to get first; "early" when the members here have not got so
        much yet, or the group has another epoch; "over" when it has ended.
        """

    def statistics(self) -> dict[str, int]:
        """Returns the counters of messages: published, delivered, dropped."""

    @property
    def evictions(self) -> int:
        """How many evictions have come here, of whichever group."""

    def note_loss(self, name: str, /) -> None:
        """
        Tells members of rooms, before the next message, that the group's may be missing.

        Nothing in a group with a history: there the positions say what is missing.
        """

    def note(self, event: str, name: str = "") -> None:
        """
        Counts an event: `published`, `failed`, `unreadable`, `lost`, `regained` or `restarted`.

        Not one of a group by whose ``name`` processes ask each other.

        Raises:
            ValueError: Another event.
        """

    def take_notice(self, timeout: float | None) -> tuple[str, list[str]] | None:
        """
        Sleeps until there is an event for the log, and returns its kind and its texts.

        None after `timeout` seconds, and when :meth:`end_notices` was called.
        """

    def end_notices(self) -> None:
        """Lets :meth:`take_notice` sleep no more."""

@final
class PendingPoll:
    """A poll that waits for its answer. Any thread may use it; no call waits."""

    def __new__(cls) -> PendingPoll: ...
    def answer(self, body: bytes, /) -> bool:
        """
        Answers it, once; False when it was answered, its client has gone, or there is no room.

        Answers count among the bytes that the process buffers until their clients have them.
        """

    def give_way(self, nothing: bytes, /) -> None:
        """
        Ends it for a later poll of the same client: with `nothing`, if there is no answer yet.

        The rest of an answer that the client has not taken is dropped.
        """

    def watch(self, hub: Hub, token: int, /) -> None:
        """Announces `token` at `hub` when there is an answer, which may be now."""

    def take(self) -> bytes | None:
        """Takes the answer, if there is one. For one that is watched."""

    def attach(self, descriptor: int, head: bytes, *, timeout: float, otherwise: bytes) -> None:
        """
        Has the answer written to a client, after `head` and its length, and the connection ended.

        `descriptor` is a duplicate that belongs to the engine from now on, also when this raises
        `OSError`. `otherwise` is written after `timeout` seconds without an
        answer, and when it has given way.
        """

@final
class Hub:
    """The list of ready connections of one event loop, or of threads that share the work."""

    def __new__(cls, *, for_threads: bool = False) -> Hub:
        """Makes one for an event loop, or one whose threads call `next`."""

    def next(
        self, round: int | None, timeout: float | None = None, /
    ) -> tuple[int, int, bool] | None:
        """
        Sleeps without the GIL until there is a token for this thread.

        `TimeoutError` when there was none for `timeout` seconds.

        The bits of a token above the lower 40 name its lane. Lanes have turns: the token is of the
        one that has had none for longest.

        `round` is the second value of this thread's last call, None at the first: it tells that the
        thread is done with that token. Returns the token, a number for the next call, and whether
        no other thread is left that would take over if this one took long. None after `close`.
        """

    def close(self) -> None:
        """Ends the threads that call `next`."""
    def fileno(self) -> int:
        """The descriptor that becomes readable when `drain` has tokens to return."""

    def drain(self) -> list[int]:
        """Takes the tokens of all connections that became ready, in order."""

    def announce(self, token: int) -> None:
        """Puts `token` on the list, as a connection does. Any thread may call it."""

    def wake(self) -> list[int]:
        """Resumes all tasks whose `MessageFuture` is done; takes the other tokens, as `drain`."""

    def served(self) -> None:
        """Lets the engine continue; to be called when all tokens of `drain` have had their turn."""

@final
class History:
    """
    The messages that were published to the groups of one backend, numbered. Any thread may use it.

    Limits are the number of messages that a group keeps, and their age in seconds. A position is an
    epoch and an offset.
    """

    @staticmethod
    def in_memory(most: int) -> History:
        """Keeps messages in this process, all together about `most` bytes."""

    def record(
        self,
        groups: Groups,
        name: str,
        message: str | bytes,
        exclude: list[bytes],
        limits: tuple[int, float],
        /,
    ) -> Wait | None:
        """
        Keeps a message, and hands it to the members in this process.

        Returns a wait for room, and nothing is kept, while more is published than can be delivered.

        Raises:
            OSError: It cannot be kept.
        """

    def read(
        self,
        groups: Groups,
        name: str,
        after: _Position | None,
        limits: tuple[int, float],
        patience: float | None,
        /,
    ) -> tuple[_Position, list[_Logged], _Position]:
        """
        Returns the newest position, messages after `after`, oldest first, and how far they go.

        They have a megabyte, or there is one: the others are for another call.

        Each with its offset, the time in milliseconds since 1970, and the keys of the members that
        did not get it. All that are kept when `after` is None, of another epoch, or
        beyond the newest.

        Waits `patience` seconds at most for another process that holds the history, those of
        :meth:`LocalNode.history` when it is None.

        Raises:
            TimeoutError: Another process holds the history.
            OSError: They cannot be read.
        """

    def catch_up(self, groups: Groups, name: str, patience: float | None, /) -> None:
        """
        Hands the members in this process what they miss of a group. Waits as :meth:`read`.

        Raises:
            TimeoutError: As :meth:`read`.
            OSError: As :meth:`read`.
        """

    def bytes(self) -> int:
        """Returns the bytes that are kept."""

    def evicted(self) -> int:
        """Returns the number of messages that were dropped because all were too large together."""

@final
class Member:
    """A user that is present in a group. Its attributes are made when they are read."""

    def __new__(
        cls,
        user: str | None,
        key: str,
        since: datetime,
        info: Any,
        connections: list[dict[str, Any]],
    ) -> Member: ...
    @property
    def user(self) -> str | None:
        """The primary key; None for an anonymous user."""

    @property
    def key(self) -> str:
        """Differs between the users of the group. It does not reveal a session's key."""

    @property
    def since(self) -> datetime:
        """When the user joined, an aware datetime."""

    @property
    def info(self) -> Any:
        """The `info` of the user's latest connection that has one; None for nothing."""

    @property
    def connections(self) -> list[dict[str, Any]]:
        """
        The connections in all processes: the `id` of each WebSocket and what it says, its `info`.

        Empty within the grace. Of a user with very many connections in one other process some are
        left out.
        """

    def as_json(self) -> str:
        """Returns the text that other members get of this user."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[type[Member], tuple[Any, ...]]: ...

@final
class Post:
    """
    A POST with messages of a client: first its body comes, then it is read.

    It counts among the bytes that the process buffers. Any thread may use it, one at a time.
    """

    def __new__(cls, max_message_size: int, /) -> Post: ...
    @staticmethod
    def max_size(max_message_size: int, /) -> int:
        """The bytes that a body may have: a message of this size in base64, and 64 KiB."""

    def take_in(self, chunk: bytes, /) -> tuple[Literal["too much", "no room"], str] | None:
        """Takes the next bytes of the body in; else a word and a sentence say why not."""

    def read(self) -> tuple[Literal["malformed", "too much"], str] | None:
        """Reads the body that has come; a word and a sentence say what is wrong with it."""

    @property
    def number(self) -> int:
        """The number of the post. This and the following `RuntimeError` before it was read."""

    @property
    def is_too_large(self) -> bool:
        """Whether a message is larger than it may be: it ends its connection."""

    @property
    def frames(self) -> bytes:
        """The messages as frames of a client."""

    def put(self, key: bytes, /) -> Literal["taken", "busy", "over", "gap"]:
        """Hands the messages to their connection, as :func:`post`, without a copy of the frames."""

@final
class Presence:
    """The users that are present in the groups of one backend. No call waits."""

    def __new__(cls, groups: Groups) -> Presence: ...
    def enter(
        self,
        name: str,
        object: _Joinable,
        id: bytes,
        key: str,
        user: str | None,
        now: str,
        info: str | None,
        watches: bool,
        grace: float,
        connection: str,
        is_present: bool,
        tells: bool,
        said_at: int | None = None,
        /,
    ) -> tuple[Member, Wait | None] | tuple[()] | None:
        """
        Makes the user of a connection present, or changes what a present connection says.

        Args:
            name: The group.
            object: The connection.
            id: Its key.
            key: That of its user.
            user: The user's primary key.
            now: This moment, as ISO 8601 with microseconds, in UTC.
            info: What it says about the user, as JSON; None for nothing.
            watches: Whether it is told which users join and leave.
            grace: Seconds for which a user without connections stays.
            connection: The name by which others know the connection.
            is_present: Whether its user is present by it. If not, it is only told of others.
            tells: Whether this process tells when the user joins, if no other one does.
            said_at: When it has said its info, in milliseconds since 1970; None for now.

        Returns:
            The user if it has joined by this, else an empty tuple; None when the connection is
            over. The second part is the wait that comes before :meth:`tells`; None where this
            process alone can tell.
        """

    def tells(self, name: str, key: str) -> bool:
        """
        Decides whether this process tells that a user has joined, and no other one.

        To be called once after :meth:`enter`, when its wait has an outcome, or has taken too long.
        """

    def leave(self, name: str, object: _Joinable) -> None:
        """Ends the presence of a connection."""

    def standing(
        self, name: str, object: _Joinable, /
    ) -> tuple[tuple[str, str | None, str] | None, tuple[str, int] | None, bool, float] | None:
        """
        Returns what another process has to know of a connection; None when it is not present.

        Its user with key, primary key and moment, None where it only watches; what it says about
        the user and when; whether it watches; the grace.
        """

    def knows(self, name: str, key: str, /) -> bool:
        """Whether a user is present, as far as this process knows."""

    def is_elsewhere(self, name: str, object: _Joinable, /) -> bool:
        """Whether another process has told that it has the connection, too."""

    def end_watch(
        self, name: str, object: _Joinable, waits: bool, /
    ) -> tuple[int, int | None] | None:
        """
        Tells a connection what is left to tell, and nothing from then on.

        Returns the users that it knows, as a number, and the same before the last change, if there
        was any; None while it is being told of some, while the number says not which changes it
        knows, or while other processes may not know of all changes, if that `waits`.
        """

    def resume_watch(
        self, name: str, object: _Joinable, known: tuple[int, int | None], ago: float, /
    ) -> bool:
        """
        Tells a present connection of all that comes after the users that it knows.

        They were so in another process as many seconds ago. False when it is not sure when they
        were so here, or when they are not yet.
        """

    def members(self, name: str) -> list[Member]:
        """Returns the users that are present, those first that have joined first."""

    def take_departed(self) -> list[tuple[str, Member, bool]]:
        """
        Returns the users that have left since the last call, each with the group's name.

        The last part is true for one that is back, which no other process tells.
        """

@final
class Exchange:
    """
    The exchange between processes about the users in groups, by a backend that carries bytes.

    Any thread may use it; but for `take` no call waits.
    """

    def __new__(cls, presence: Presence, groups: Groups, most_bytes: int) -> Exchange:
        """Takes what `presence` has to tell. `most_bytes`: of the users in one envelope, about."""

    @staticmethod
    def is_message(envelope: bytes) -> bool:
        """Whether an envelope is for `on_message`."""

    def channels(self) -> list[str]:
        """Returns the names to which this process has to subscribe before anything else is done."""

    def wants(self, name: str) -> bool:
        """Whether what comes on the channel `name` is for this process."""

    def takes_part(self, name: str) -> bool:
        """Whether this process has users in a group, and knows those of the others."""

    def begin(self, name: str) -> bool:
        """
        Begins to take part in a group to which this process has subscribed. `end` has to follow.

        Returns:
            Whether it did not before. Then the subscription is to be kept until `take` returns
            the name without bytes.
        """

    def end(self, name: str) -> None:
        """Follows `begin`, when the connection is present."""

    def learn(self, name: str) -> tuple[int, Call, bytes | None] | None:
        """
        Asks for the users of the others, after `begin`. None when they are known.

        Returns:
            The question's number; its call, which is done when all have answered; and what is to be
            published on the group's channel, or None when another caller does so.
        """

    def ask(self, name: str) -> tuple[int, Call, bytes | None]:
        """Asks for the users where this process takes no part. `gathered` has to follow."""

    def expect(self, number: int, processes: int) -> None:
        """Tells how many processes got a question, this one among them."""

    def give_up(self, number: int) -> None:
        """Waits for no more answers to a question."""

    def fail(self, number: int, reason: str) -> None:
        """Ends a question that could not be published."""

    def gathered(self, number: int) -> list[Member]:
        """Returns the answers to `ask`: the users, those first that have joined first."""

    def greet(self, names: list[str] | None = None) -> None:
        """Tells the others what they may have missed of groups, by default of all, and asks."""

    def take(self, timeout: float) -> list[tuple[str, bytes | None]] | None:
        """
        Sleeps until there is something to do, and returns it: names with bytes to be published.

        A name without bytes is that of a group whose subscription is to be released. None when the
        exchange has ended.
        """

    def note_failure(self) -> None:
        """Notes that the result of `take` could not be published."""

    def stop(self) -> list[tuple[str, bytes | None]]:
        """Ends the exchange. Returns what is still to be published."""

    def on_message(self, name: str, envelope: bytes) -> bool:
        """Takes what has come on a channel. False for what no process of this project has sent."""

@final
class Call:
    """A call of a backend that is under way. Any thread may use it."""

    def wait(self, timeout: float | None) -> bool:
        """Sleeps until there is an outcome; false when the time was up."""

    def watch(self, hub: Hub, token: int) -> None:
        """Puts `token` on the hub's list as soon as there is an outcome."""

    def unwatch(self, hub: Hub, token: int) -> None:
        """Takes `watch` back."""

    def outcome(self) -> int | str | tuple[_Position, list[tuple[int, int, bytes]]] | None:
        """
        Returns the number, the messages, or the reason for the failure; None when there is none
        yet.

        Messages are what `Groups.take_page` and `Groups.read_rows` take.
        """

@final
class Wait:
    """
    A wait for something that may come, such as room. Any thread may use it.

    A caller that was woken asks again: others may have been quicker.
    """

    def wait(self, timeout: float | None) -> bool:
        """Sleeps until it may have come; false when the time was up."""

    def watch(self, hub: Hub, token: int) -> None:
        """Puts `token` on the hub's list as soon as it may have come."""

    def unwatch(self, hub: Hub, token: int) -> None:
        """Takes `watch` back."""

    def outcome(self) -> bool | None:
        """Returns True when it may have come; None before."""

@final
class LocalNode:
    """
    This process as one of the processes of this machine that share groups.

    Any thread may use it. But for the start and the stop no call waits.
    """

    def __new__(
        cls, path: PathLike[str], user: int, groups: Groups, presence: Presence
    ) -> LocalNode:
        """
        Listens on a socket in the folder `path` of the system's user `user`, which is made if it
        is missing, and connects to the other processes there. Sleeps until they have connected
        back, half a second at most.

        Raises:
            OSError: The folder is a link or a file, belongs to another user, or others may enter
                it; or the system has no more descriptors.
        """

    def publish(self, name: str, message: str | bytes, exclude: list[bytes], /) -> Wait | None:
        """
        Sends a message to the members in all processes, but for those with the keys in `exclude`.

        Returns a wait for room, and nothing is sent, while a process is behind by too many
        messages.

        Raises:
            ValueError: A message of more than 512 MiB.
            OSError: The node is that of a parent process.
        """

    def pass_on(self, name: str, envelope: bytes, /) -> Wait | None:
        """
        Hands an envelope of an event or an eviction to the members in all processes.

        Returns a wait as :meth:`publish`.

        Raises:
            OSError: As :meth:`publish`.
        """

    def history(self, most: int, timeout: float) -> History:
        """
        Returns the history in files beside the sockets, all together about `most` bytes, and has
        messages that are missing here read from it. Calls wait `timeout` seconds at most for
        another process.

        Raises:
            OSError: Its folder cannot be made, or is a foreign one.
        """

    def record(
        self,
        history: History,
        name: str,
        message: str | bytes,
        exclude: list[bytes],
        limits: tuple[int, float],
        patience: float | None,
        /,
    ) -> Wait | None:
        """
        Keeps and publishes a message of a group with a history.

        Raises:
            ValueError: As :meth:`publish`.
            TimeoutError: As :meth:`History.read`, which waits as long.
            OSError: As :meth:`publish`, or it cannot be kept; then no member gets it.
        """

    def close(self, name: str, code: int, reason: str) -> Wait | None:
        """
        Closes the members in all processes; waits and fails as :meth:`publish`.

        Raises:
            ValueError: A code that must not be sent, or a reason that does not fit.
            OSError: As :meth:`publish`.
        """

    def begun(self) -> list[tuple[int, int]]:
        """
        Returns how far the messages of each node have come, those of this one too.

        Each that comes from now on, and has a higher number, reaches those that are members now.
        """

    def has_taken(self, begun: list[tuple[int, int]], /) -> bool:
        """Whether the messages of these nodes up to these numbers have come to the members here."""

    def count(self, name: str) -> int:
        """Returns the number of members in all processes; of others as half a second ago."""

    def peers(self) -> int:
        """Returns the number of other processes."""

    def processes(self) -> list[int]:
        """Returns the numbers of the other processes, as far as the system tells them."""

    def stop(self, timeout: float) -> None:
        """
        Sends what waits for other processes, and removes the socket. Needs no engine.

        Sleeps `timeout` seconds at most.
        """

@final
class Carrier:
    """
    The server's side of a connection that an ASGI server carries. For one task at a time.

    The engine announces the token of :func:`open_carried` when there is something to :meth:`take`,
    when :meth:`has_room` has become true, and when :attr:`is_over` has. No call waits.
    """

    def bring(self, message: str | bytes, /) -> bool:
        """
        Hands over a message of the client.

        False when the next one is to stay in the server until :meth:`has_room`.
        """

    def has_room(self) -> bool:
        """Whether the engine takes more messages."""

    def take(self) -> dict[str, Any] | None:
        """
        Returns the server's next event, ``websocket.send`` or ``websocket.close``.

        The one before counts as sent then. None when there is none.
        """

    def note_in_server(self, size: int, /) -> None:
        """Counts so many bytes, which the server buffers, for the limit of the process."""

    def break_off(self) -> None:
        """Drops all that is to be sent: the server takes no more."""

    def leave(self, code: int, reason: str, /) -> None:
        """
        Ends it as the client has. Messages that were brought before are still delivered.

        1006 is a lost client, 1012 a server that restarts. Only the first call counts.
        """

    @property
    def is_shed(self) -> bool:
        """Whether it was closed because it held too much."""

    @property
    def is_over(self) -> bool:
        """Whether the engine has let go of it: the application may end."""

@final
class Mailbox:
    """
    The messages of groups for no connection: what has no room is dropped.

    Any thread may use it; no call waits.
    """

    def __new__(cls, capacity: int, hub: Hub, token: int) -> Mailbox:
        """Makes one for `capacity` bytes; it announces `token` when something comes into it."""

    def pop(self) -> str | bytes | None:
        """Takes the oldest message."""

    def end(self) -> None:
        """Leaves all groups, for good."""

@final
class Seats:
    """The seats of one connection. Any thread may use it; no call waits."""

    def __new__(
        cls, object: Connection | Mailbox, id: bytes, user: str | None, number: int, /
    ) -> Seats:
        """
        Begins without seats.

        Args:
            object: The connection.
            id: The member's key, by which seats are evicted.
            user: The user's name, by which all seats of the user are evicted.
            number: That of notices about the end of a seat.
        """

    def take(self, room: str, /) -> Seat | None:
        """
        Takes a held seat in a room, in place of the one there; None when the connection is over.
        """

    def find(self, room: str, /) -> Seat | None:
        """Returns the seat in a room, until it is left, also when it has ended."""

    def rooms(self) -> list[str]:
        """Returns the rooms in which there is a seat."""

    def ended(self) -> list[str]:
        """Returns those whose seats have ended by themselves."""

    def __len__(self) -> int:
        """Returns how many seats there are."""

@final
class Seat:
    """
    A connection in one room: a member of the room's group, under the room's name.

    Messages that come while it is held wait. It ends with its connection, when it is left, and when
    its user is evicted; then it is in no group. Any thread may use it; no call waits.
    """

    def open(self, at: _Position | None, /) -> bool:
        """Hands on what has come to a client that is at a position; false when it is over."""

    @property
    def position(self) -> _Position | None:
        """How far its client is, in a group with a history."""

    def leave(self) -> None:
        """Ends it. Nothing of the room comes after this call."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""

    @property
    def owes_loss(self) -> bool:
        """Whether messages were lost of which its client is not told yet."""

@final
class Bucket:
    """Permits, of which so many come a second, and so many are kept."""

    def __new__(cls, rate: float, most: float, /) -> Bucket: ...
    def take(self) -> bool:
        """Takes a permit, if there is one."""

    def wait(self) -> float:
        """Returns the seconds until there is a permit."""

@final
class Passage:
    """The events of one client that go to the other members of a room without Python."""

    def __new__(
        cls,
        names: list[str],
        sender: str,
        publisher: Groups | LocalNode,
        buckets: list[Bucket],
        most_bytes: int,
        /,
    ) -> Passage:
        """
        Makes one, for any number of rooms.

        Args:
            names: The names of the events.
            sender: Who sends them, as JSON.
            publisher: The groups of the backend.
            buckets: Each event takes a permit of each.
            most_bytes: The bytes of a message at most.
        """

    def open(self, seat: Seat, /) -> None:
        """Lets the events pass in the room of a seat, in place of those that did so far."""

@final
class MessageFuture:
    """An awaitable that a task sleeps on: the part of a future that asyncio's tasks use."""

    _asyncio_future_blocking: bool

    def get_loop(self) -> asyncio.AbstractEventLoop: ...
    def add_done_callback(
        self, callback: Callable[[MessageFuture], object], *, context: Context | None = None
    ) -> None: ...
    def result(self) -> None: ...
    def cancel(self, msg: object = None) -> bool: ...

@final
class Ping:
    """A ping on its way. Dropping this object ends the wait for the answer."""

    def wait(self, timeout: float | None) -> float | None:
        """
        Sleeps without the GIL until the answer has come, `timeout` seconds at most.

        Returns the seconds that it took; None when the time was up, or the end has come before.
        """

@final
class NextMessage:
    """
    A connection's next message, `str` or `bytes`, each time it is awaited.

    Several tasks of its loop may await it: each message goes to one of them. Cancelling one loses
    no message.
    At the end it raises `StopAsyncIteration`.
    """

    def __await__(self) -> Generator[Any, None, str | bytes]: ...
    def __iter__(self) -> Generator[Any, None, str | bytes]: ...
    def __next__(self) -> Any: ...

@final
class Hold:
    """Bytes that Python holds for a connection, until it is garbage."""

    def release(self) -> None:
        """Counts them no more. Does nothing when repeated."""

@final
class Permit:
    """
    A place among the process's connections; free again when all its holders have released it.

    The holders are the connection (:func:`adopt`) and this object, for the view.
    """

    @staticmethod
    def claim(limit: int | None) -> Permit | None:
        """Takes a place; returns None when `limit` are taken."""

    def share(self) -> Permit:
        """Returns another hold on the same place. Raises `ValueError` when it has been released."""

    def release(self) -> None:
        """Releases this hold on the place. Does nothing when repeated."""

@final
class Threads:
    """
    Threads of the system that run functions, each with `threading.local`s of its own.

    Any thread may use it. A forked child needs another one.
    """

    def __new__(cls) -> Threads: ...
    def run(self, function: Callable[[], object], stack_size: int) -> None:
        """
        Calls `function()` on a thread whose stack has `stack_size` bytes.

        The thread may have run another function before. An exception of `function` goes to
        `sys.unraisablehook`. Raises `RuntimeError` when the system gives no more threads.
        """

@final
class MarkedCut:
    """
    The end of a membership at a marker, a name of 16 bytes that is used once.

    It is awaited from now on, until the end of this object.
    """

    def __new__(
        cls, groups: Groups, name: str, object: _Joinable, marker: bytes, /
    ) -> MarkedCut: ...
    @property
    def is_done(self) -> bool:
        """Whether the marker has come."""

    @property
    def departed(self) -> _Departure | None:
        """The point at which it has left, as :func:`depart`; None also before the marker."""

@final
class Deputy:
    """
    A member of groups for a connection that is expected from another process.

    It keeps messages that have no position. For a connection in a room `seat` has its key and the
    name of its user, by which it is evicted.
    """

    def __new__(cls, seat: tuple[bytes, str | None] | None = None, /) -> Deputy: ...
    def begin_at_marker(
        self, groups: Groups, name: str, before: Deputy, id: bytes, marker: bytes, /
    ) -> None:
        """
        Becomes a member when a marker comes, in place of another deputy. Once.

        Args:
            groups: The groups.
            name: The group.
            before: The member until then, which has to live as long.
            id: The key of the connection.
            marker: The marker's name.
        """

    @property
    def has_begun(self) -> bool:
        """Whether its marker has come."""

    def succeed(
        self,
        groups: Groups,
        name: str,
        object: _Joinable,
        id: bytes,
        got: list[tuple[int, int]],
        at: tuple[int, int, bool] | None,
        /,
    ) -> int | Literal["behind", "early"] | None:
        """
        Makes a connection a member in its place, without a message in between.

        Args:
            groups: The groups.
            name: The group.
            object: The connection, or its seat in a room.
            id: Its key.
            got: Messages that it does not get: of each process those up to this number.
            at: In a group with a history its position, and whether it gets numbers.

        Returns:
            The number of the first entry that is for it. "behind" where the group is further on,
            "early" where it is not as far. None when this is no member any more, or the connection
            is over.
        """

    def take_kept(self, object: _Joinable, got: list[tuple[int, int]], /) -> bytes | None:
        """
        Returns the frames of all other messages that it has kept; None when it was too much.

        The connection is closed if a group that this was in was closed meanwhile.
        """

    @property
    def evicted(self) -> str | None:
        """The reason for which it was evicted from its room; None if it was not."""

    def leave(self) -> None:
        """Leaves all groups, for good."""

@final
class Takeover:
    """
    The takeover of a client's connection from its server.

    The server keeps its descriptor, which then refers to a placeholder: it reads as the end of the
    stream, and bytes written to it never reach the client. Any thread may call the methods; none
    waits.
    """

    def __new__(cls, server_side: int) -> Takeover:
        """
        Allocates the descriptors for exchanging the server's descriptor `server_side`.

        Raises:
            OSError: The process has no descriptors left, or the client has gone.
        """

    def put_placeholder(self, server_side: int) -> None:
        """
        Makes the server's descriptor refer to the placeholder, in the socket's blocking mode. Once.

        Raises:
            OSError: The descriptor has been closed meanwhile.
        """

    def take_client(self) -> int | None:
        """Returns the client's descriptor, which the caller then owns; None if that was done."""

    def discard(self) -> None:
        """
        Drops all that the server writes to its placeholder from now on.

        Without it a server that writes more than the placeholder's buffer holds would block.

        Raises:
            OSError: There is no descriptor left.
        """

    def finish(self) -> None:
        """Closes what is left, after the server has written to its placeholder. May be repeated."""

@type_check_only
class RedisServer(TypedDict):
    """A server of `Redis`. A node without a port is a Unix socket."""

    kind: str
    nodes: list[tuple[str, int | None]]
    database: int
    username: str | None
    password: str | None
    service: str | None
    sentinel_username: str | None
    sentinel_password: str | None
    tls: bool
    prefix: str

@type_check_only
class RedisCertificates(TypedDict):
    """Certificates for TLS, as PEM; the client's own one has its key beside it."""

    authorities: bytes | None
    own: tuple[bytes, bytes] | None
    is_unverified: bool

@final
class Redis:
    """The backend in Redis of groups. Any thread may use it; no call waits."""

    def __new__(
        cls,
        groups: Groups,
        servers: list[RedisServer],
        timeout: float,
        certificates: RedisCertificates | None = None,
        *,
        keeps_history: bool = False,
    ) -> Redis:
        """
        Makes a backend that connects on its first call.

        Args:
            groups: The groups of this process.
            servers: Groups are spread over them by their names.
            timeout: The seconds that a call may take.
            certificates: For servers with TLS.
            keeps_history: Whether `record` and `read` are used.

        Raises:
            ValueError: An unknown kind of server, or certificates that cannot be used.
            OSError: The system gives no thread or no descriptor.
        """

    def use_exchange(self, exchange: Exchange, /) -> None:
        """Hands an exchange what comes for it from now on. Only the first one counts."""

    def publish(self, name: str, envelope: bytes) -> Call:
        """Publishes an envelope. The outcome is the number of connections that got it."""

    def record(self, name: str, envelope: bytes, limits: tuple[int, float], /) -> Call:
        """
        Keeps an envelope, and publishes it with its number. The outcome is its offset.

        `limits`: the messages that the group keeps, and their age in seconds.
        """

    def read(self, name: str, after: _Position | None, limits: tuple[int, float], /) -> Call:
        """
        Reads what is kept after a position, as :meth:`History.read`, about 1 MiB.

        The outcome is a tuple: the newest position, and the messages, oldest first.
        """

    def subscribe(self, names: list[str]) -> list[Call]:
        """
        Subscribes to the envelopes of groups, with one round trip for all of them.

        Returns the calls to wait for: none for groups that have a subscription. In any case,
        `release` has to follow for each name, after the joining of the member.
        """

    def release(self, name: str, *, if_empty: bool) -> None:
        """Follows `subscribe`. With `if_empty` the subscription ends unless there are members."""

    def unsubscribe(self, name: str) -> None:
        """Ends a subscription, unless there are members."""

    def subscription(self, name: str, /) -> int:
        """
        The number of the connection that brings all messages of a group, or would bring them.

        It is another one after each gap in the messages; 0 while they do not come.
        """

    def count(self, name: str) -> Call:
        """Counts the members of a group in all processes."""

    def status(self) -> list[tuple[str | None, int]]:
        """Returns for each server why it is away, if it is, and how often it was lost."""

    def lag(self) -> float | None:
        """
        Returns the seconds that the last PING took, after what waited for this process.

        Of several nodes the longest; None before it was measured, and while no node is there.
        """

@final
class Tls:
    """Settings of TLS for connections to other servers."""

    def __new__(cls, certificates: RedisCertificates, /) -> Tls:
        """
        Reads the certificates. `authorities` of None are those of the system.

        Raises:
            ValueError: They cannot be used, or this processor cannot do TLS.
        """

@final
class Dialer:
    """Connections to another server, each opened in the same way. Any thread may use it."""

    def __new__(
        cls,
        address: tuple[str, int],
        target: str,
        *,
        headers: list[tuple[str, str]],
        subprotocols: list[str],
        compression: tuple[int, int] | None,
        settings: Settings,
        timeout: float | None,
        tls: Tls | None = None,
        server_name: str | None = None,
        proxy: tuple[str, int, str | None] | None = None,
    ) -> Dialer:
        """
        Checks the request.

        Args:
            address: The server's host and port.
            target: Path and query.
            headers: Those of the request, `Host` among them; the handshake adds its own.
            subprotocols: Those to offer.
            compression: The least size and the level, 1 to 9; None offers none.
            settings: Those of the connections.
            timeout: The seconds that opening may take.
            tls: Encrypts.
            server_name: The name in the server's certificate, if not its host.
            proxy: Its host, its port, and the value of `Proxy-Authorization`.

        Raises:
            ValueError: A header, a subprotocol or the target cannot be sent.
        """

    def dial(self) -> Dial:
        """
        Begins to open a connection; does not wait.

        Raises:
            OSError: The system has no thread or descriptor left for the engine.
        """

    def exchange(self, request: bytes, /) -> Dial:
        """
        Begins to send `request` as it is, and to read the answer; does not wait.

        For clients in tests, which may break every rule: nothing in the answer is validated. If it
        is a 101 the socket is the caller's, by `Dial.descriptor`.

        Raises:
            OSError: As for `dial`.
        """

_Answer: TypeAlias = tuple[int, str, list[tuple[str, str]]]
#: The connection, its subprotocol, whether it is compressed, and the status, the reason and the
#: headers of the answer. Or such an answer that refuses, and its body; for `exchange` any answer,
#: and what came after it. Or `"timeout"`, `"shutting down"` or the step that failed, and why.
_DialOutcome: TypeAlias = (
    tuple[Connection, str | None, bool, _Answer] | tuple[_Answer, bytes] | tuple[str, str]
)

@final
class Dial:
    """A connection that is being opened. Any thread may use it; dropping it gives up."""

    def wait(self, timeout: float | None) -> bool:
        """Sleeps until there is an outcome; false when the time was up."""

    def watch(self, hub: Hub, token: int) -> None:
        """Puts `token` on the hub's list as soon as there is an outcome."""

    def unwatch(self, hub: Hub, token: int) -> None:
        """Takes `watch` back."""

    def cancel(self) -> None:
        """Gives up, though this object may be kept. Closes what is open by now, taken or not."""

    def descriptor(self) -> int | None:
        """
        Returns the socket after a 101 to `Dialer.exchange`, once: from then on it is the caller's.

        It does not block. Where the server encrypts it is one end of a pair, after which the
        engine does.
        """

    def outcome(self) -> _DialOutcome | None:
        """Returns the outcome; None when there is none yet. The connection is the caller's then."""

@final
class Settings:
    """How connections are driven: sizes in bytes, times in seconds. Never changed."""

    def __new__(
        cls,
        *,
        max_message_bytes: int,
        max_frame_bytes: int | None,
        max_fragments: int,
        messages_per_second: float | None,
        bytes_per_second: float | None,
        rate_timeout: float | None,
        ping_interval: float | None,
        ping_timeout: float | None,
        receive_buffer_bytes: int,
        send_buffer_bytes: int,
        send_timeout: float | None,
        close_timeout: float,
        message_timeout: float | None = None,
    ) -> Settings: ...

def adopt(
    descriptor: int,
    early: bytes,
    head: bytes,
    permit: Permit,
    settings: Settings,
    compression: Compression | None = None,
    memberships: list[tuple[Groups, str, bytes]] = ...,
    posts: bytes | None = None,
    /,
) -> Connection:
    """
    Takes a client's connection over: sends `head`, then uses the WebSocket protocol on it.

    It becomes a member of the groups in `memberships`, with an id for each, before `head` is sent.

    `descriptor` is a duplicate that belongs to the engine from now on, also when this raises
    (`OSError`, `ShuttingDown`): then the client is answered with 503. `early` are bytes that the
    client sent after its handshake.

    With a key of 16 bytes for `posts` it sends server-sent events, and takes messages by `post()`.

    The connection holds the place of `permit` until it is over. So does `permit` itself, until it
    is released or dropped.
    """

def adopt_moved(
    descriptor: int,
    incoming: bytes,
    unread: list[tuple[bool, bytes]],
    pulse: _Pulse,
    permit: Permit,
    settings: Settings,
    compression: Compression | None = None,
    memberships: list[tuple[Groups, str, bytes]] = ...,
    /,
) -> Connection:
    """
    Goes on with a connection that another process has given away: see `Connection.give_away`.

    It reads at once, and sends nothing before `Connection.release`. Until then it leaves the socket
    as it is, whatever happens: the other process may take the connection back. It opens also while
    this process ends.

    `descriptor` belongs to the engine from now on, also when this raises `OSError`.
    """

def after_fork_in_child() -> None:
    """Drops the parent's engine without using it; to be called first in a forked child."""

def depart(groups: Groups, name: str, object: _Joinable, /) -> _Departure | None:
    """
    Ends a membership.

    Returns the last number of each process whose messages it has got, or will have got when
    `has_handed_out` says so of the second value; in a group with a history the position, and
    whether it gets numbers. None when it is no member.
    """

def frames_for(connection: Connection, messages: list[str | bytes], /) -> bytes:
    """Messages as frames for a connection."""

def has_handed_out(groups: Groups, name: str, until: int, /) -> bool:
    """Whether the entries of a group before this number have reached their members."""

def client_frame(
    opcode: int, payload: bytes, key: bytes, *, is_final: bool = True, rsv1: bool = False
) -> bytes:
    """A frame as a client sends it, masked with the four bytes of `key`. For tests."""

def clock_ahead() -> float:
    """How many seconds the engine's clock is ahead of the real one."""

def now() -> float:
    """Returns seconds since some moment of this process, by the engine's clock."""

def close_all(code: int, reason: str) -> None:
    """Begins to close all connections and takes no new ones. Does not wait."""

def die_of_sigterm() -> None:
    """Ends the process as SIGTERM does by default."""

def discard(descriptor: int, /) -> None:
    """
    Reads a socket to its end and drops the bytes. The descriptor stays its owner's.

    Raises:
        OSError: There is no descriptor left.
    """

def drain(code: int, reason: str, window: float) -> float:
    """
    Closes all connections, spread over `window` seconds, and takes no new ones. Does not wait.

    Returns the seconds until the last one gets its close frame, 0 when none is open. A later call
    can only make that time shorter; one that would end later changes nothing.
    """

def event_stream_head(id: str, subprotocol: str | None, headers: list[tuple[str, str]], /) -> bytes:
    """
    The head of a response with server-sent events, and the first event, which has `id`.

    `ValueError` as :func:`response_head`.
    """

def fallback_opened(id: str, subprotocol: str | None, /) -> bytes:
    """The JSON with which a client that polls learns that its connection is open."""

def is_default(signal: int, /) -> bool:
    """
    Whether a signal has its default action: no handler, also none that Python does not know.

    Raises:
        OSError: There is no such signal.
    """

def is_leaving() -> bool:
    """Whether the process takes no new connections any more."""

def is_terminated() -> bool:
    """Whether SIGTERM has come since `on_terminate`."""

def is_token(text: str) -> bool:
    """Whether `text` is a token (RFC 9110 section 5.6.2), as subprotocol names must be."""

def validate_handshake(
    *,
    method: str,
    http_version: tuple[int, int],
    host: str | None,
    content_length: str | None,
    transfer_encoding: str | None,
    upgrade: str | None,
    connection: str | None,
    version: str | None,
    key: str | None,
    protocols: str | None,
    extensions: str | None,
) -> tuple[int, str, list[str]]:
    """
    Validates a request's handshake headers (RFC 6455 section 4.2.1).

    Returns 101, the accept key and the offered subprotocols, or the status of the refusal, its
    reason and an empty list.
    """

def may_send_close_code(code: int) -> bool:
    """Whether a close frame may carry `code` (RFC 6455 section 7.4)."""

def read_event(message: str | bytes, /) -> tuple[str, str, str | None, str, int] | None:
    """
    Reads an event of a client of rooms.

    Returns the names of its room and of itself, its id and its data as JSON, as the client has
    written them, and the bytes of the message. None for a message that the engine does not read.
    """

def answer(encode: Callable[[Any], str], request_id: str, result: object, /) -> str:
    """
    Returns the answer to a request of a client of rooms.

    The id is JSON, and ``encode`` returns the result as such where it is no text.
    """

def read_join(message: str, /) -> tuple[str, str, str | None, str | None, bool] | None:
    """
    Reads a request of a client to join a room, or to change what others see of it.

    Returns the room's name, the request's id as JSON, the position that the client has, as JSON
    what others are to see of it, and whether it changes that. None for a message that the engine
    does not read.
    """

def in_room(room: str, at: _Position | None, message: str | bytes, /) -> str:
    """Returns the text for a message of a room; without a position in one without a history."""

def ended(room: str, code: str, reason: str, /) -> str:
    """Returns the text for a connection whose membership of a room has ended."""

def numbered(name: str, at: _Position, message: str | bytes, /) -> str:
    """Returns the text that a member of the group `name` gets which asked for numbers."""

def on_exit(plans: list[tuple[int, bool, int, str, float, bool]], grace: float) -> None:
    """
    Closes all connections when the process exits in a way that runs no Python.

    Args:
        plans: For each cause of the exit: the signal, 0 for none; whether the server's handler
            of it calls ``exit``; close code and reason; the seconds over which the closes are
            spread; and whether the server's own exit hook closes them, so that this does not. The
            last signal to arrive selects the entry; without one for it, the first entry applies. A
            handler that exits gets its signal only after the closes.
        grace: Seconds that clients have to answer after that.
    """

def on_terminate(start: Callable[[], object]) -> None:
    """
    Calls `start` when SIGTERM comes, in addition to the existing handler.

    Again while it raises, because there is no thread; once that is written to `sys.unraisablehook`.
    After two seconds all connections are closed, and a process without another handler ends.

    Where there was no handler, SIGTERM no longer ends the process: `start` has to do that. A forked
    child inherits this and has to restore the default.

    `start` is called on a thread that Python has not started. If the interpreter ended meanwhile,
    it would stop such a thread within Python code, and Rust would abort the process. So `start`
    must be written in C and must not release the GIL: it starts a thread of Python's.
    """

def buffered_bytes() -> int:
    """The bytes that the engine buffers for all connections. Below 4 KiB a part is not counted."""

def overview() -> tuple[int, _Traffic, list[float]]:
    """
    Returns the number of open connections of the engine, their traffic with that of all connections
    before them, and how many seconds the last answered ping of each one took, where there was one.
    """

def open_connections() -> int:
    """The number of the process's connections, open ones and handshakes with a reserved place."""

def wait_for_none_open() -> Wait | None:
    """Returns a wait until :func:`open_connections` is 0; None when it is."""

def open_carried(
    hub: Hub,
    token: int,
    permit: Permit,
    settings: Settings,
    memberships: list[tuple[Groups, str, bytes]] = ...,
    /,
) -> tuple[Connection, Carrier]:
    """
    Opens a connection whose frames an ASGI server speaks.

    `permit` and `memberships` are as for `adopt`, `token` one of `hub`: see :class:`Carrier`. It
    opens also while the process ends. Raises `OSError` when the engine cannot be started.
    """

def open_polled(
    key: bytes,
    permit: Permit,
    settings: Settings,
    memberships: list[tuple[Groups, str, bytes]] = ...,
    /,
) -> Connection:
    """
    Opens a connection whose client polls by `key`, of 16 bytes, and posts its messages.

    `permit` and `memberships` are as for `adopt`. Raises `OSError` when there is no descriptor
    left, and `ShuttingDown`.
    """

def poll(
    key: bytes, ack: int, pending: PendingPoll, /
) -> Literal["held", "no room", "out of turn", "over"]:
    """
    Answers a poll which acknowledges the events up to number `ack`. Never waits.

    "held": the answer is that of `pending`, now when there are events, else later. The poll before
    gives way.
    """

def polling_head(headers: list[tuple[str, str]], /) -> bytes:
    """
    The head of a response with JSON, up to its length.

    `ValueError` as :func:`response_head`.
    """

def post(key: bytes, number: int, frames: bytes, /) -> Literal["taken", "busy", "over", "gap"]:
    """
    Hands what :attr:`Post.frames` has to the connection with this key for posts. Never waits.

    Posts are numbered from 1; one that is repeated is taken once.
    """

def prepare() -> None:
    """
    Starts the engine, unless it runs.

    So its threads and descriptors are allocated before a client is taken over. Raises `OSError`
    when there is no thread or no descriptor for it, or its threads have failed.
    """

def reopen() -> None:
    """Takes new connections again after `drain` or `close_all`. For tests."""

def response_head(
    accept_key: str,
    subprotocol: str | None,
    headers: list[tuple[str, str]],
    *,
    compression: Compression | None = None,
) -> bytes:
    """The head of the 101 response. `ValueError` for headers that would break it."""

def shut_down(code: int, reason: str, grace: float) -> None:
    """Closes all connections and takes no new ones; sleeps until they are gone, or `grace`."""

def signal_seen() -> int:
    """Of the signals given to :func:`on_exit`, the last one to arrive, or 0."""

def step_clock(seconds: float) -> None:
    """
    Steps the engine's clock ahead, and sleeps until the engine has done all work due by then.

    For tests. The engine of a process that has none yet begins with this clock.
    """

def limit_buffered(limit: int | None, /) -> None:
    """
    Sets how many bytes the engine may buffer for all connections; ``None`` for no limit.

    At the limit it reads no more from connections that hold much, and closes the largest with 1013.
    """

def unwatch_descriptor(epoll: int, descriptor: int, /) -> None:
    """
    Takes a descriptor out of the epoll set of another library. It may be in none. On Linux only.

    Raises:
        OSError: There is no such set.
    """

def want_threads(count: int) -> None:
    """Sets the engine's number of threads, if it has not been started yet."""

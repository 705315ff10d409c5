"""
A process with groups over PostgreSQL, as a test drives it: one command a line on its input, one
answer a line.

Its argument is JSON: `databases` and `groups` (WEBSOCKET_GROUPS), `secret`, `patched`: gevent,
eventlet or nothing, and `psycopg2`: the folder of that library, to use it. It has one member, which
is no WebSocket but the mailbox of one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from history_commands import HistoryCommands

if TYPE_CHECKING:
    from collections.abc import Iterator


def main() -> None:
    """Answer commands until the input ends."""
    options = json.loads(sys.argv[1])
    patch(options.get("patched"))
    if options.get("psycopg2"):
        sys.path.append(options["psycopg2"])
        # Django prefers the newer one.
        sys.modules["psycopg"] = None  # type: ignore[assignment]

    from django.conf import settings

    settings.configure(
        SECRET_KEY=options.get("secret", "secret"),
        DATABASES=options["databases"],
        WEBSOCKET_GROUPS=options["groups"],
        INSTALLED_APPS=options.get("apps", ["dwebsocket", "dwebsocket.groups.postgres"]),
        USE_TZ=True,
        LOGGING_CONFIG=None,
    )
    import django

    django.setup()
    node = Node()
    logger = logging.getLogger("dwebsocket")
    logger.addHandler(node)
    logger.setLevel(logging.INFO)
    print("ready", flush=True)
    for line in commands():
        command, *arguments = json.loads(line)
        try:
            answer: Any = getattr(node, command)(*arguments)
        except Exception as error:
            cause = error.__cause__
            answer = {
                "error": type(error).__name__,
                "text": str(error),
                "cause": cause and type(cause).__name__,
            }
        print(json.dumps(answer), flush=True)


def commands() -> Iterator[bytes]:
    """Yield each line of the input, however the reads cut it."""
    # Not by iteration over the file, which reads ahead; and not by a patched file.
    # Patched libraries run their other green threads while `select` waits.
    rest = b""
    while select.select([0], [], []) and (read := os.read(0, 1 << 16)):
        *lines, rest = (rest + read).split(b"\n")
        yield from lines


def patch(library: str | None) -> None:
    """Patch the standard library."""
    if library == "gevent":
        from gevent import monkey

        monkey.patch_all()
    elif library == "eventlet":
        import eventlet

        eventlet.monkey_patch()


class Node(HistoryCommands, logging.Handler):
    """The commands."""

    def __init__(self) -> None:
        super().__init__()
        from dwebsocket import _core

        self.hub = _core.Hub()
        self.mailbox = _core.Mailbox(256 * 1024 * 1024, self.hub, 1)
        self.lines: list[str] = []
        self.transaction: Any = None
        self.told: list[tuple[str, list[str]]] = []
        self._watch_reports()

    def _watch_reports(self) -> None:
        """Note what the backend reports, beside what is done with it."""
        from dwebsocket.groups import reports

        report = reports.report

        def watched(backend: Any, kind: str, texts: list[str]) -> None:
            report(backend, kind, texts)
            self.told.append((kind, texts))

        reports.report = watched

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what is logged."""
        self.lines.append(record.getMessage())

    @property
    def backend(self) -> Any:
        """The backend."""
        from dwebsocket.groups import backends

        return backends.backend("default")

    def join(self, *names: str) -> list[bool]:
        """Make the mailbox a member."""
        return [self.backend.add(name, self.mailbox, b"k" * 16) for name in names]

    def join_held(self, *names: str) -> list[bool]:
        """Make it a member of groups that `hold_soon` holds, as a connection that opens."""
        return [self.backend.join(name, self.mailbox, b"k" * 16) for name in names]

    def join_again(self, name: str, times: int) -> str:
        """Have it leave and join so many times, and publish meanwhile."""
        for number in range(times):
            self.backend.discard(name, self.mailbox)
            self.send(name, f"missed {number}")
            self.join(name)
        return "joined"

    def join_in_task(self, name: str) -> bool:
        """Make it a member in an event loop."""
        return bool(asyncio.run(self.backend.aadd(name, self.mailbox, b"k" * 16)))

    def send(self, name: str, *messages: str) -> str:
        """Publish messages."""
        from dwebsocket import group

        for message in messages:
            group(name).send(message)
        return "sent"

    def send_numbers(self, name: str, first: int, last: int) -> int:
        """Publish numbers; those that are refused again, until they are not. Count the refusals."""
        from dwebsocket import GroupUnavailable, group

        refused = 0
        for number in range(first, last):
            while True:
                try:
                    group(name).send(str(number))
                    break
                except GroupUnavailable:
                    refused += 1
                    time.sleep(0.02)
        return refused

    def send_in_thread(self, name: str, message: str) -> str:
        """Publish in a thread."""
        thread = threading.Thread(target=self.send_and_close, args=(name, message))
        thread.start()
        thread.join()
        return "sent"

    def send_and_close(self, name: str, message: str) -> None:
        """Publish, and close the connection of this thread."""
        from django.db import connection

        self.send(name, message)
        connection.close()

    def send_in_task(self, name: str, *messages: str) -> str:
        """Publish in an event loop."""
        from dwebsocket import group

        async def send() -> None:
            for message in messages:
                await group(name).asend(message)

        asyncio.run(send())
        return "sent"

    def send_large(self, name: str, *sizes: int) -> str:
        """Publish messages of these sizes, text and bytes in turns."""
        from dwebsocket import group

        for number, size in enumerate(sizes):
            group(name).send("ä" * (size // 2) if number % 2 else b"x" * size)
        return "sent"

    def send_in_transaction(self, name: str, how: str, *messages: str) -> list[str]:
        """Publish in a transaction, and what comes before it ends. `how`: commit or rollback."""
        from django.db import transaction

        class Rollback(Exception):
            pass

        try:
            with transaction.atomic():
                self.send(name, *messages)
                early = self.take(1, 0.2)
                if how == "rollback":
                    raise Rollback
        except Rollback:
            pass
        return early

    def send_in_manual_mode(self, name: str, first: str, second: str) -> list[str]:
        """Publish where autocommit is off, and give what comes before the commit."""
        from django.db import transaction

        from dwebsocket import group

        transaction.set_autocommit(False)
        group(name).send(first)
        group(name).send(second, on_commit=True)
        early = self.take(1, 0.2)
        transaction.commit()
        return early

    def begin(self, isolation: str = "READ COMMITTED") -> str:
        """Begin a transaction, which ends with `commit` or `rollback`."""
        from django.db import connection, transaction

        self.transaction = transaction.atomic()
        self.transaction.__enter__()
        with connection.cursor() as cursor:
            cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
            cursor.execute("SELECT 1")
        return "begun"

    def commit(self) -> str:
        """Commit it."""
        self.transaction.__exit__(None, None, None)
        return "committed"

    def rollback(self) -> str:
        """Roll it back."""
        from django.db import transaction

        transaction.set_rollback(True)
        self.transaction.__exit__(None, None, None)
        return "rolled back"

    def send_in_transactions(self, names: list[str], count: int) -> str:
        """Publish a number to each of the groups in one transaction, so many times."""
        from django.db import transaction

        for number in range(count):
            with transaction.atomic():
                for name in names:
                    self.send(name, str(number))
        return "sent"

    def send_and_be_terminated(self, name: str, message: str) -> str:
        """Publish in a transaction whose connection the server has ended."""
        from django.db import transaction

        with transaction.atomic():
            self.terminate_own()
            return self.send(name, message)

    def terminate_own(self) -> None:
        """Make the server end this process's connection of Django, also in a transaction."""
        import psycopg
        from django.db import connection

        connection.ensure_connection()
        raw: Any = connection.connection
        with psycopg.connect(raw.info.dsn, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [raw.info.backend_pid])
            while other.execute(
                "SELECT 1 FROM pg_stat_activity WHERE pid = %s", [raw.info.backend_pid]
            ).fetchone():
                time.sleep(0.01)

    def send_without_an_answer(self, name: str, message: str, how: str) -> str:
        """Publish so that the server takes it, and its answer is lost: once, or each time."""
        from django.db import OperationalError, connection

        publisher = self.backend._publisher
        execute = publisher._execute

        def lose(used: Any, sql: str) -> None:
            execute(used, sql)
            used.connection.close()
            if how == "once":
                publisher._execute = execute
            raise OperationalError("the answer is lost")

        connection.ensure_connection()
        publisher._execute = lose
        try:
            return self.send(name, message)
        finally:
            publisher._execute = execute

    def fork_and_send(self, name: str, message: str) -> int:
        """Publish from a forked child, which stays. Give its process number."""
        import signal

        child = os.fork()
        if child == 0:
            self.send(name, message)
            while True:
                signal.pause()
        return child

    def fork_and_join(self, name: str, message: str) -> str:
        """Join in a forked child, publish there, and give what has come there."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            node = Node()
            joined = node.join(name)
            node.send(name, message)
            os.write(writer, json.dumps([joined, node.take(1)]).encode())
            os._exit(0)
        found = os.read(reader, 1 << 16)
        os.waitpid(child, 0)
        return found.decode()

    def count(self, name: str) -> int:
        """Count members."""
        from dwebsocket import group

        return group(name).count()

    def count_in_task(self, name: str) -> int:
        """Count members in an event loop."""
        from dwebsocket import group

        return asyncio.run(group(name).acount())

    def take(self, number: int, seconds: float = 60.0) -> list[str]:
        """Give the next messages as texts, large ones as their kind and length."""
        found: list[str] = []
        deadline = time.monotonic() + seconds
        while len(found) < number and time.monotonic() < deadline:
            message = self.mailbox.pop()
            if message is None:
                time.sleep(0.002)
                continue
            deadline = time.monotonic() + seconds
            if len(message) < 1000:
                found.append(str(message))
            else:
                size = len(message.encode() if isinstance(message, str) else message)
                found.append(f"{type(message).__name__} {size}")
        return found

    def hold_soon(self, *names: str) -> list[str]:
        """Hold groups as a handshake of a user does. Give the threads that were started for it."""
        from dwebsocket.compat import unpatched

        started: list[str] = []
        start = unpatched.start_thread

        def noted(name: str, target: Any) -> None:
            started.append(name)
            start(name, target)

        unpatched.start_thread = noted
        try:
            for name in names:
                self.backend.hold_soon(name)
        finally:
            unpatched.start_thread = start
        return started

    def statistics(self) -> dict[str, Any]:
        """Give the counters of this process."""
        from dwebsocket import group_statistics

        return {**group_statistics()["default"]}

    def take_all(self, number: int) -> list[str]:
        """Give the next messages, and what comes soon after them."""
        return self.take(number) + self.take(1, 0.3)

    def log(self) -> list[str]:
        """Take what was logged."""
        lines, self.lines = self.lines, []
        return lines

    def channel(self) -> str:
        """Give the secret channel."""
        return str(self.backend._place.channel)

    def seal(self, name: str, message: str) -> str:
        """Give the sealed envelope of a message, in base64."""
        import base64

        return base64.b64encode(self.backend.groups.encode(name, message, [])).decode()

    def reports(self) -> list[tuple[str, list[str]]]:
        """Give what was reported."""
        return self.told

    def probe_never(self) -> None:
        """Give the listener nothing to do but what it is asked for."""
        from dwebsocket.groups.backends.postgres import listener

        listener.PROBE_S = 3600.0

    def long_messages_without_end(self) -> None:
        """Have each long message that comes bring itself again."""
        from dwebsocket.groups.backends.postgres import payload

        listener, place = self.backend._listener, self.backend._place
        fetch = listener._fetch

        def fetch_again(link: Any, row: Any) -> None:
            fetch(link, row)
            link._notifications.append((place.channel, payload.of_row(row, place.key)))

        listener._fetch = fetch_again

    def hour_passes(self) -> None:
        """Have the listener use the histories of groups with members at its next look."""
        self.backend._listener._use_at = 0.0

    def is_listening(self) -> bool:
        """Whether the connection that listens is there."""
        return bool(self.backend._listener.is_listening)

    def problems(self) -> list[str]:
        """Give what the doctor finds."""
        return list(self.backend.problems(deploy=True))

    def request_begins(self) -> None:
        """Do to the database connection what Django does between requests."""
        from django.db import close_old_connections

        close_old_connections()

    def set(self, timeout: float) -> None:
        """Change a limit of the session, to see that it stays."""
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = %s", [timeout])

    def ask(self, sql: str) -> Any:
        """Ask the database on Django's connection."""
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else None

    def manage(self, *arguments: str) -> str:
        """Run a management command and give what it writes."""
        import contextlib
        import io

        from django.core.management import execute_from_command_line

        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                execute_from_command_line(["manage.py", *arguments])
            except SystemExit as error:
                output.write(f"exit {error.code}")
        return output.getvalue()

    def threads(self) -> list[str]:
        """Give the names of the running threads."""
        return [thread.name for thread in threading.enumerate()]


if __name__ == "__main__":
    main()

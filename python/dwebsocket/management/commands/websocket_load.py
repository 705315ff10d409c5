"""``manage.py websocket_load``: many clients of one WebSocket, and how fast it answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from dwebsocket.client.address import Address
from dwebsocket.compat import rich
from dwebsocket.compat.system import UNLIMITED, limits_of
from dwebsocket.exceptions import UnsupportedServer
from dwebsocket.management.arguments import (
    add_connecting,
    check_number,
    has_proxy,
    options_of,
    text_of,
)
from dwebsocket.management.terminal import load, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DESCRIPTION = """
Opens many WebSockets, sends through each at a rate, and says how many messages came back and how
long they took. It expects an answer to each message, as of an echo, unless --no-answers says
otherwise. Hosts other than this machine, and proxies, need --yes.
"""
# Descriptors that a process needs beside its connections.
_SPARE_DESCRIPTORS = 50
# Bytes of the largest message.
_MOST_BYTES = 2**30


class Command(BaseCommand):
    help = " ".join(_DESCRIPTION.split())
    requires_system_checks: list[str] = []  # noqa: RUF012

    def add_arguments(self, parser: CommandParser) -> None:
        add_connecting(parser)
        add = parser.add_argument
        add("--clients", type=int, default=10, help="how many (10)")
        add("--rate", type=float, default=1.0, help="messages a second of each client (1)")
        add("--seconds", type=float, default=10.0, help="how long each client sends (10)")
        add("--ramp", type=float, default=1.0, help="seconds over which they are opened (1)")
        add("--message", default="hello", help="what they send (hello)")
        add("--size", type=int, help="send so many bytes in place of --message")
        add("--no-answers", action="store_true", help="do not wait for an answer to each message")
        add("--yes", action="store_true", help="the host or proxy is mine, though not this machine")
        add("--json", action="store_true", help="print the figures as JSON, and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints the figures, also when interrupted. ``CommandError`` when no client connects."""
        plan, result = _plan(options), load.Result()
        with self._progress(plan, result, quiet=options["json"]) as tell:
            try:
                asyncio.run(load.run(plan, result, tell))
            except (UnsupportedServer, ValueError, TypeError) as error:
                raise CommandError(text_of(error)) from None
            except KeyboardInterrupt:
                # The figures of the messages until then are printed.
                pass
        figures = result.as_dict()
        if options["json"]:
            self.stdout.write(json.dumps(figures, indent=2))
        else:
            self._show(figures)
        if not result.opened:
            raise CommandError("no client could connect")

    def _show(self, figures: dict[str, Any]) -> None:
        self.stdout.write(f"opened    {figures['opened']}")
        self.stdout.write(f"sent      {figures['sent']}")
        rate = figures["received_per_second"]
        self.stdout.write(f"received  {figures['received']} ({rate:g} a second)")
        for name, label in (("handshake_ms", "handshake"), ("answer_ms", "answer")):
            if (times := figures[name]) is not None:
                text = ", ".join(f"{share} {time:g}" for share, time in times.items())
                self.stdout.write(f"{label:<9} {text} ms")
        for code, count in figures["closes"].items():
            self.stdout.write(self.style.WARNING(f"{count} closed with {code}"))
        for failure, count in figures["failures"].items():
            text = writing.shown(failure, colour=False)
            self.stdout.write(self.style.ERROR(f"{count} failed: {text}"))

    @contextlib.contextmanager
    def _progress(
        self, plan: load.Load, result: load.Result, *, quiet: bool
    ) -> Iterator[Callable[[], None]]:
        if quiet or not sys.stderr.isatty():
            yield lambda: None
            return
        messages = plan.clients * max(1, round(plan.rate * plan.seconds))
        with rich.bars({"clients": plan.clients, "messages": messages}) as update:
            if update is not None:
                yield lambda: update({"clients": result.opened, "messages": result.sent})
            else:
                yield lambda: self.stderr.write(_line(plan, result), ending="\r")
                self.stderr.write("")


def _line(plan: load.Load, result: load.Result) -> str:
    return (
        f"{result.open} of {plan.clients} open, {result.sent} sent, {result.received} received, "
        f"{sum(result.failures.values())} failed "
    )


def _plan(options: dict[str, Any]) -> load.Load:
    try:
        address = Address.parse(options["url"])
    except ValueError as error:
        raise CommandError(str(error)) from None
    for is_far, what in [
        (not address.is_loopback, f"{address.host} is not this machine"),
        (has_proxy(options), "--proxy is taken for another machine"),
    ]:
        if is_far and not options["yes"]:
            raise CommandError(f"{what}: --yes says that you may load it, and want to")
    check_number(options, "clients", least=1)
    for name in ("rate", "seconds", "ramp"):
        check_number(options, name)
    allowed, _ = limits_of("NOFILE")
    if allowed != UNLIMITED and options["clients"] > allowed - _SPARE_DESCRIPTORS:
        raise CommandError(
            f"--clients {options['clients']} needs more open files than the {allowed} that this "
            "shell allows: see `ulimit -n`"
        )
    if (size := options["size"]) is not None:
        check_number(options, "size", most=_MOST_BYTES)
    return load.Load(
        url=options["url"],
        clients=options["clients"],
        rate=options["rate"],
        seconds=options["seconds"],
        ramp=options["ramp"],
        message=options["message"] if size is None else bytes(size),
        answers=not options["no_answers"],
        options=options_of(options, []),
    )

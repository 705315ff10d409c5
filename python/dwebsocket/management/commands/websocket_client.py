"""``manage.py websocket_client``: talks to a WebSocket from the terminal."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper

from dwebsocket.client import connect
from dwebsocket.client.address import Address
from dwebsocket.compat import prompt_toolkit
from dwebsocket.exceptions import ConnectionFailed, HandshakeRefused, UnsupportedServer
from dwebsocket.management.arguments import (
    add_connecting,
    check_number,
    has_proxy,
    options_of,
    text_of,
)
from dwebsocket.management.terminal import lines, recording, writing
from dwebsocket.management.terminal.conversation import Conversation
from dwebsocket.management.terminal.sign_in import session_of, user_of

if TYPE_CHECKING:
    from dwebsocket.client import ClientConnection

_DESCRIPTION = """
Opens a WebSocket, sends each line that is typed, and shows what comes. /help shows the commands.
With prompt_toolkit lines can be edited and are remembered.
"""


class Command(BaseCommand):
    help = " ".join(_DESCRIPTION.split())
    requires_system_checks: list[str] = []  # noqa: RUF012

    def add_arguments(self, parser: CommandParser) -> None:
        add_connecting(parser)
        add = parser.add_argument
        add("--session", metavar="USER", help="as this user, by a session (DEBUG, this machine)")
        add("--record", metavar="FILE", help="write the conversation to this file")
        add("--replay", metavar="FILE", help="send again what a recorded client has sent")
        add("--plain", action="store_true", help="read the standard input as it is")
        add(
            "--linger",
            type=float,
            default=1.0,
            help="seconds of silence after the last line of a file or pipe, before it closes",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Talks until the input or the connection ends. ``CommandError`` when it does not open."""
        check_number(options, "linger")
        with contextlib.ExitStack() as stack:
            entries = list(_entries(options["replay"])) if options["replay"] else None
            recorder = None
            if options["record"]:
                file = stack.enter_context(_open(options["record"], "w"))
                recorder = recording.Recorder(file)
            headers = []
            if options["session"]:
                headers.append(("Cookie", stack.enter_context(self._session(options))))
            websocket = stack.enter_context(self._connect(options, headers))
            self._greet(websocket)
            with contextlib.suppress(KeyboardInterrupt):
                if entries is not None:
                    conversation = Conversation(websocket, self._show, recorder)
                    conversation.replay(entries)
                    conversation.finish(options["linger"])
                else:
                    typed = lines.TypedLines(plain=options["plain"])
                    if typed.has_prompt:
                        stack.enter_context(self._beside_prompt(options))
                    conversation = Conversation(websocket, self._show, recorder, typed.stop)
                    try:
                        conversation.talk(typed)
                    except UnicodeError as error:
                        raise CommandError(f"the standard input is no text: {error}") from None
                    # A user at the terminal has seen the answers, and wants to leave.
                    conversation.finish(0 if typed.by_hand else options["linger"])

    def _connect(self, options: dict[str, Any], headers: list[tuple[str, str]]) -> ClientConnection:
        try:
            return connect(options["url"], **options_of(options, headers))
        except HandshakeRefused as refused:
            raise CommandError(writing.shown(writing.explained(refused), colour=False)) from None
        except (ConnectionFailed, UnsupportedServer, ValueError) as error:
            raise CommandError(writing.shown(text_of(error), colour=False)) from None

    @contextlib.contextmanager
    def _beside_prompt(self, options: dict[str, Any]) -> Any:
        """Has what is shown stand above the line that is being typed."""
        own = self.stdout
        with prompt_toolkit.beside_prompt():
            if not options.get("stdout"):
                # Django's wrapper has the old one, which would write into that line.
                self.stdout = OutputWrapper(sys.stdout)
            try:
                yield
            finally:
                self.stdout = own

    def _session(self, options: dict[str, Any]) -> contextlib.AbstractContextManager[str]:
        if not settings.DEBUG:
            raise CommandError("--session works with DEBUG = True only")
        try:
            address = Address.parse(options["url"])
        except ValueError as error:
            raise CommandError(str(error)) from None
        if not address.is_loopback:
            raise CommandError("--session sends a session to this machine only")
        if has_proxy(options):
            raise CommandError("--session sends a session to no --proxy: leave one of them out")
        try:
            return session_of(user_of(options["session"]))
        except LookupError as error:
            raise CommandError(f"--session: {error}") from None

    def _greet(self, websocket: ClientConnection) -> None:
        agreed = [f"subprotocol {websocket.subprotocol}"] if websocket.subprotocol else []
        agreed += ["compressed"] if websocket.is_compressed else []
        terms = f" ({', '.join(agreed)})" if agreed else ""
        self._show("!", f"open{terms}; /help for help")

    def _show(self, sign: str, message: str | bytes) -> None:
        style = {"<": self.style.SUCCESS, ">": self.style.NOTICE, "!": self.style.WARNING}[sign]
        has_colour = sign != "!" and self.style.SUCCESS("") != ""
        text = writing.shown(message, colour=has_colour)
        self.stdout.write(f"{style(sign)} {text}")


def _entries(path: str) -> list[recording.Entry]:
    with _open(path, "r") as file:
        try:
            return list(recording.read(file))
        except ValueError as error:
            raise CommandError(f"--replay: {path}: {error}") from None


def _open(path: str, mode: str) -> Any:
    try:
        return Path(path).open(mode, encoding="utf-8")
    except OSError as error:
        raise CommandError(str(error)) from None

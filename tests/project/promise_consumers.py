"""A game as projects of Channels have it: correct only when no two of its calls overlap."""

from __future__ import annotations

import sqlite3

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from django.contrib.auth.models import User

PLACES = 6


class Table:
    """The players of one kind of consumers, and their moves."""

    def __init__(self, name):
        self.name = name
        self.players = []
        self.moves = None

    def join(self, player):
        """Take a place, if there is one, after a look at the database."""
        if len(self.players) >= PLACES:
            return False
        User.objects.get_or_create(username=self.name)
        self.players.append(player)
        return True

    def leave(self, player):
        """Give the place back."""
        if player in self.players:
            self.players.remove(player)

    def move(self):
        """Count a move in the database, and in one whose connection belongs to a thread."""
        score = User.objects.get(username=self.name)
        score.last_name = str(int(score.last_name or 0) + 1)
        score.save()
        if self.moves is None:
            self.moves = sqlite3.connect(":memory:")
            self.moves.execute("create table moves (number)")
        self.moves.execute("insert into moves values (?)", [score.last_name])
        (count,) = self.moves.execute("select count(*) from moves").fetchone()
        return f"{count} {score.last_name}"


class Game(WebsocketConsumer):
    """A game whose code is sync."""

    table = Table("game")

    def connect(self):
        if self.table.join(self):
            self.accept()
        else:
            self.close()

    def disconnect(self, code):
        self.table.leave(self)

    def receive(self, text_data=None, bytes_data=None):
        self.send(self.table.move())


class AsyncGame(AsyncWebsocketConsumer):
    """The same game in the event loop."""

    table = Table("async-game")

    async def connect(self):
        if await database_sync_to_async(self.table.join)(self):
            await self.accept()
        else:
            await self.close()

    async def disconnect(self, code):
        await database_sync_to_async(self.table.leave)(self)

    async def receive(self, text_data=None, bytes_data=None):
        await self.send(await database_sync_to_async(self.table.move)())

"""Rooms: what is said in one reaches all that have subscribed to it."""

import asyncio
from collections.abc import AsyncGenerator

import strawberry
from channels.layers import get_channel_layer
from django.contrib.auth.models import User


@strawberry.type
class Message:
    """What was said in a room."""

    room: str
    text: str


@strawberry.type
class Query:
    """What can be asked."""

    @strawberry.field
    async def users(self) -> int:
        """Count the users of the site."""
        return await User.objects.acount()

    @strawberry.field
    def me(self, info: strawberry.Info) -> str:
        """Give the name of the user, by the scope of the WebSocket."""
        return str(info.context["ws"].scope["user"])


@strawberry.type
class Mutation:
    """What can be done."""

    @strawberry.mutation
    async def say(self, room: str, text: str) -> Message:
        """Say something in a room."""
        event = {"type": "room.message", "room": room, "text": text}
        await get_channel_layer().group_send(f"room_{room}", event)
        return Message(room=room, text=text)


@strawberry.type
class Subscription:
    """What can be subscribed to."""

    @strawberry.subscription
    async def messages(self, info: strawberry.Info, room: str) -> AsyncGenerator[Message, None]:
        """Give what is said in a room, and first that the subscription has begun."""
        consumer = info.context["ws"]
        async with consumer.listen_to_channel("room.message", groups=[f"room_{room}"]) as events:
            yield Message(room=room, text="you are here")
            async for event in events:
                if event["room"] == room:
                    yield Message(room=room, text=event["text"])

    @strawberry.subscription
    async def count(self, target: int) -> AsyncGenerator[int, None]:
        """Count, and end."""
        for number in range(target):
            yield number
            await asyncio.sleep(0)

    @strawberry.subscription
    async def broken(self) -> AsyncGenerator[int, None]:
        """Give one number, and fail."""
        yield 1
        raise LookupError("no more numbers")


schema = strawberry.Schema(query=Query, mutation=Mutation, subscription=Subscription)

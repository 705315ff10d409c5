"""
A process with a channel layer, which a test drives: ``layer_process.py SETTINGS``.

Each line of its input is a Python literal: a number for the answer, the name of a function below or
of a method of the layer, and arguments. Answers come as they are ready, as literals, too.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import sys
import threading
from typing import Any


def configure() -> None:
    """Set Django up."""
    import django
    from django.conf import settings

    settings.configure(**json.loads(sys.argv[1]))
    django.setup()
    from dwebsocket.channels import node

    # On a busy machine the others may take over late what an ending process holds.
    node._FAREWELL_S = 10.0


class Process:
    """What a test may ask for, beside the layer's own methods."""

    def __init__(self) -> None:
        from channels.layers import get_channel_layer

        self.layer = get_channel_layer()
        self._tasks: dict[int, asyncio.Task[Any]] = {}

    async def call(self, number: int, name: str, *arguments: Any) -> Any:
        """Call it."""
        if hasattr(self, name):
            return await getattr(self, name)(*arguments)
        self._tasks[number] = asyncio.ensure_future(getattr(self.layer, name)(*arguments))
        try:
            return await self._tasks[number]
        except asyncio.CancelledError:
            return "cancelled"

    async def cancel(self, number: int) -> None:
        """Cancel a call of the layer."""
        self._tasks[number].cancel()

    async def events(self) -> dict[str, Any]:
        """Give what was dropped."""
        from dwebsocket import event_counts

        return {
            name: sum(event_counts()[f"channel.{name}"].values()) for name in ("full", "expired")
        }

    async def delivered(self) -> int:
        """Give how many messages of the backend have come to this process."""
        from dwebsocket import group_statistics

        return group_statistics()["default"]["delivered"]

    async def channels_in(self, group: str, count: int) -> list[str]:
        """Make channels, and add them to a group."""
        found = [await self.layer.new_channel() for _ in range(count)]
        for each in found:
            await self.layer.group_add(group, each)
        return found

    async def receive_all(self, channels: list[str]) -> list[Any]:
        """Give the next message of each channel."""
        return [await self.layer.receive(each) for each in channels]

    async def play(self, name: str, *kinds: str) -> None:
        """Play a scene of `layer_consumers.py`."""
        import layer_consumers

        await getattr(layer_consumers, name)(*kinds)

    async def forked(self, channel: str) -> tuple[Any, Any]:
        """Fork: the child sends, and receives what it sends to itself."""
        import warnings

        warnings.simplefilter("ignore", DeprecationWarning)
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                found = asyncio.new_event_loop
                thread = threading.Thread(
                    target=lambda: os.write(writes, self._in_child(found, channel))
                )
                thread.start()
                thread.join(30)
            finally:
                os._exit(0)
        os.close(writes)
        with os.fdopen(reads, "rb") as pipe:
            answer = await asyncio.to_thread(pipe.read)
        await asyncio.to_thread(os.waitpid, child, 0)
        found: tuple[Any, Any] = ast.literal_eval(answer.decode())
        return found

    def _in_child(self, new_loop: Any, channel: str) -> bytes:
        async def work() -> tuple[Any, Any]:
            own = await self.layer.new_channel()
            await self.layer.group_add("family", own)
            await self.layer.send(own, {"type": "own"})
            await self.layer.send(channel, {"type": "from the child", "channel": own})
            first = await self.layer.receive(own)
            return first, await self.layer.receive(own)

        loop = new_loop()
        try:
            return repr(loop.run_until_complete(work())).encode()
        except Exception as error:
            return repr((f"{type(error).__name__}: {error}", None)).encode()
        finally:
            loop.close()


async def main() -> None:
    """Obey until the input ends."""
    process = Process()
    loop = asyncio.get_running_loop()
    tasks = set()

    async def answer(number: int, name: str, *arguments: Any) -> None:
        try:
            found = (number, True, await process.call(number, name, *arguments))
        except Exception as error:
            found = (number, False, f"{type(error).__name__}: {error}")
        print(repr(found), flush=True)

    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        task = asyncio.ensure_future(answer(*ast.literal_eval(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    configure()
    asyncio.run(main())

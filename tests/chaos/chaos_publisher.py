"""
A process that publishes to several groups until its input ends.

Arguments: its name, "sync", "async" or "once", the seconds between two rounds, and the groups. Each
attempt has a number of its own, so that one that raised, and has arrived or not, is told from the
next one. In the end it prints which attempts were made: `[[group, text, has_returned], …]` in JSON.
"""

from __future__ import annotations

import asyncio
import json
import select
import sys

Attempts = list[tuple[str, str, bool]]


def forms(text: str, number: int) -> str | bytes:
    """Give the message: as text, as text of JSON, or as bytes."""
    match number % 3:
        case 0:
            return text
        case 1:
            return json.dumps({"is": text})
        case _:
            return text.encode()


def is_over(seconds: float) -> bool:
    """Wait, and say whether the input has ended."""
    return bool(select.select([0], [], [], seconds)[0])


def publish(publisher: str, number: int, groups: list[str]) -> Attempts:
    """Publish a message to each group in turn."""
    from dwebsocket import group
    from dwebsocket.exceptions import GroupUnavailable

    made: Attempts = []
    for name in groups:
        text = f"{publisher}:{name}:{number}"
        try:
            group(name).send(forms(text, number))
        except GroupUnavailable:
            made.append((name, text, False))
        else:
            made.append((name, text, True))
    return made


async def apublish(publisher: str, pause: float, groups: list[str]) -> Attempts:
    """As `publish`, in an event loop, to all groups at the same time."""
    from dwebsocket import group
    from dwebsocket.exceptions import GroupUnavailable

    made: Attempts = []

    async def attempt(name: str, number: int) -> None:
        text = f"{publisher}:{name}:{number}"
        try:
            await group(name).asend(forms(text, number))
        except GroupUnavailable:
            made.append((name, text, False))
        else:
            made.append((name, text, True))

    number = 0
    while not await asyncio.to_thread(is_over, pause):
        number += 1
        await asyncio.gather(*(attempt(name, number) for name in groups))
    return made


def main() -> None:
    """Publish."""
    import django

    django.setup()
    publisher, how, pause, *groups = sys.argv[1:]
    if how == "once":
        made = publish(publisher, 1, groups)
    elif how == "sync":
        made = []
        number = 0
        while not is_over(float(pause)):
            number += 1
            made += publish(publisher, number, groups)
    else:
        made = asyncio.run(apublish(publisher, float(pause), groups))
    print(json.dumps(made), flush=True)


if __name__ == "__main__":
    main()

"""A process of the test project that is no server, as a test drives it: it publishes and counts."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.audience import message


def main() -> None:
    """Answer commands until the input ends."""
    import django

    django.setup()
    print("ready", flush=True)
    commands = {"publish": publish, "count": count}
    rest = b""
    while read := os.read(0, 1 << 16):
        *lines, rest = (rest + read).split(b"\n")
        for line in lines:
            command, *arguments = json.loads(line)
            try:
                answer: object = commands[command](*arguments)
            except Exception as error:
                answer = repr(error)
            print(json.dumps(answer), flush=True)


def publish(name: str, publisher: str, first: int, last: int) -> int:
    """Publish messages and say how many they were."""
    from dwebsocket import group

    for number in range(first, last):
        group(name).send(message(publisher, number))
    return last - first


def count(name: str) -> int:
    """Count members."""
    from dwebsocket import group

    return group(name).count()


if __name__ == "__main__":
    main()

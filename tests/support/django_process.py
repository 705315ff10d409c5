"""
`python -m django` in a process of the fork server: ``django_process.py ARGUMENTS``, a list in JSON.

At its end it prints its exit status, and what it has written to either stream, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path


def run(arguments: list[str]) -> int:
    """Run a command as the interpreter does; give the exit status."""
    # The project is beside this folder, whose files have the names of libraries.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    # Its usage has the command's name.
    sys.argv = ["__main__.py", *arguments]
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Run it with files as its streams."""
    answer = os.dup(1)
    files = [tempfile.TemporaryFile() for _ in range(2)]
    for number, file in enumerate(files, 1):
        os.dup2(file.fileno(), number)
    status = run(json.loads(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    texts = []
    for file in files:
        file.seek(0)
        texts.append(file.read().decode())
    with os.fdopen(answer, "w") as stream:
        json.dump([status, *texts], stream)


if __name__ == "__main__":
    main()

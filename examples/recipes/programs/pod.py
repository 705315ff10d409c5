"""Stands in for `kubectl exec -i <pod> -- sh`: a log line each second, a prompt, an echo."""

import itertools
import sys
import threading
import time


def log() -> None:
    """Print a line each second, as the application in a pod does."""
    for number in itertools.count(1):
        time.sleep(1)
        # In place of the prompt, which follows.
        print(f"\r{time.strftime('%X')} served request {number}\npod> ", end="", flush=True)


threading.Thread(target=log, daemon=True).start()
print("pod> ", end="", flush=True)
for line in sys.stdin:
    print(f"you typed {line.strip()}\npod> ", end="", flush=True)

"""
Starts one of the examples, with all that it needs, until Ctrl-C.

    python examples/run.py bell
    python examples/run.py bell 8001

Options after the name go to the server: `runserver`, or uvicorn for FastAPI beside Django.
"""

import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = sorted(path.parent.name for path in HERE.glob("*/manage.py"))
SERVERS = {
    "fastapi_beside": "-m uvicorn --ws dwebsocket.uvicorn:WebSocketProtocol"
    " fastapi_beside.asgi:application",
}
BESIDE = {
    "dashboard": "manage.py simulate --changes 100000",
    "task": "-m celery -A task.celery worker --pool solo --loglevel warning",
}
# Those with a page to sign in.
WITH_USER = {"bell", "dashboard", "tutorials"}
USER = """
from django.contrib.auth import get_user_model
users = get_user_model().objects
if not users.filter(username="demo").exists():
    users.create_superuser("demo", password="demo")
"""


def main(name: str, options: list[str]) -> int:
    """Makes the database and a user, and runs the server, with a process beside it for some."""

    def start(*words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, *words], cwd=HERE / name)

    if status := start("manage.py", "migrate", "--verbosity", "0").wait():
        return status
    if name in WITH_USER:
        start("manage.py", "shell", "--verbosity", "0", "-c", USER).wait()
        print('Sign in as "demo" with the password "demo".', flush=True)
    beside = [start(*BESIDE[name].split())] if name in BESIDE else []
    server = start(*SERVERS.get(name, "manage.py runserver").split(), *options)

    def end(*_: object) -> None:
        for process in (server, *beside):
            process.terminate()

    def ignore(*_: object) -> None:
        """A terminal sends Ctrl-C to all of them; the server says when it has ended."""

    signal.signal(signal.SIGINT, ignore)
    signal.signal(signal.SIGTERM, end)
    status = server.wait()
    end()
    for process in beside:
        process.wait()
    return status


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        sys.exit(f"python examples/run.py {' | '.join(NAMES)}")
    sys.exit(main(sys.argv[1], sys.argv[2:]))

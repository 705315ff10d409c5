"""
Follows docs/start.md word by word, as a new user does.

    python .ci/follow_start.py PAGE FOLDER

Files are written, and commands are run, in FOLDER, which is empty at first. Servers run until the
next one starts, or until the end. Needs the standard library only, and a shell; pip finds packages
where its environment says. Ends with 1 at the first command that fails.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"\A(?:# |<!-- )([\w/.]+)(, below \w+)?(?: -->)?\n")
SERVERS = ("python manage.py runserver", "gunicorn ", "uvicorn ")
DOCTOR = "python manage.py websocket_doctor "
ADDRESS = ("127.0.0.1", 8000)
SECONDS_FOR_A_SERVER = 60


class Follower:
    """One user with a shell in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.activation = ""
        self.server = None
        # The command that examines a running server.
        self.doctor = None

    def follow(self, page):
        """Does what the page says."""
        for language, text in BLOCK.findall(page):
            if language == "console":
                for command in text.splitlines():
                    self.run(command)
            else:
                self.write(text)
        # The page shows the doctor after one server. It examines the last server, too.
        self.run(self.doctor)

    def write(self, text):
        """Writes a file, or adds to it."""
        named = FILE.match(text)
        path = self.folder / named[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if named[2] else "w", encoding="utf-8") as file:
            file.write(text[named.end() :])

    def run(self, command):
        """Runs a command of the shell."""
        print("$", command, flush=True)
        if command.startswith(DOCTOR):
            self.doctor = command
        if command.startswith(". "):
            self.activation = command + "\n"
            return
        if command.startswith(SERVERS):
            self.stop_server()
            self.server = subprocess.Popen(
                ["sh", "-c", self.activation + "exec " + command],
                cwd=self.folder,
                start_new_session=True,
            )
            self.wait_for_server()
            return
        subprocess.run(["sh", "-ec", self.activation + command], cwd=self.folder, check=True)

    def wait_for_server(self):
        """Waits until the server takes connections."""
        deadline = time.monotonic() + SECONDS_FOR_A_SERVER
        while True:
            with socket.socket() as probe:
                if not probe.connect_ex(ADDRESS):
                    return
            if self.server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the server did not start")
            time.sleep(0.1)

    def stop_server(self):
        """Ends the server that runs, as Ctrl-C does."""
        if self.server is not None:
            os.killpg(self.server.pid, signal.SIGINT)
            self.server.wait(timeout=SECONDS_FOR_A_SERVER)
            self.server = None


def main():
    # A shell starts background jobs with SIGINT ignored, and servers would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    page, folder = (Path(name) for name in sys.argv[1:])
    follower = Follower(folder)
    try:
        follower.follow(page.read_text(encoding="utf-8"))
    finally:
        follower.stop_server()
    print("followed to the end")


if __name__ == "__main__":
    main()

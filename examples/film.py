"""
Makes the moving picture of the README from the running chat demo: two browsers, two workers.

    .venv/bin/pip install pillow
    .venv/bin/python examples/film.py docs/chat.gif

Needs what the tests need, and Chromium.
"""

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from PIL import Image  # noqa: E402

from support.browser import chromium  # noqa: E402
from support.server import GUNICORN_GTHREAD, Server  # noqa: E402
from support.waiting import eventually  # noqa: E402

DEMO = ROOT / "examples" / "chat"
SIZE = (560, 460)
#: Milliseconds that a picture is shown, and the last one.
STEP, END = 450, 2500

SHELL = """
from chat.models import Room
from django.utils import timezone
room = Room.objects.get(slug="workshop")
room.group.send_json(
    {"key": "film", "author": "Shell", "text": "Said while you were away.", "at": timezone.now()}
)
"""


class Film:
    """Pictures of two browsers side by side."""

    def __init__(self, browsers):
        self.browsers = browsers
        self.pictures = []

    def take(self, times=1):
        """Adds a picture, shown for so many steps."""
        shots = [Image.open(io.BytesIO(each.get_screenshot_as_png())) for each in self.browsers]
        picture = Image.new("RGB", (2 * SIZE[0] + 8, SIZE[1]), "#8a949e")
        for number, shot in enumerate(shots):
            picture.paste(shot.convert("RGB").crop((0, 0, *SIZE)), (number * (SIZE[0] + 8), 0))
        self.pictures += [picture] * times

    def save(self, path):
        """Writes a GIF."""
        first, *rest = (picture.quantize(96, dither=Image.Dither.NONE) for picture in self.pictures)
        times = [STEP] * len(rest) + [END]
        first.save(path, save_all=True, append_images=rest, duration=times, loop=0)


def state(browser):
    """Gives what the page shows of its connection; None while it is loading."""
    return browser.execute_script("return document.querySelector('#state')?.dataset.state")


def hears(browser, text):
    """Waits for a message."""
    eventually(lambda: text in browser.find_element("id", "messages").text)


def say(film, browser, text):
    """Types a message, and sends it."""
    field = browser.find_element("id", "message")
    for part in (text[: len(text) // 2], text[len(text) // 2 :]):
        field.send_keys(part)
        time.sleep(0.2)
        film.take()
    browser.find_element("id", "send").click()
    for each in film.browsers:
        hears(each, text)
    film.take(2)


def main():
    (path,) = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        server = Server(
            GUNICORN_GTHREAD,
            options=("--workers", "2", "--threads", "4"),
            cwd=DEMO,
            module="demo",
            probe="/",
            env={"CHAT_DB": f"{folder}/chat.sqlite3"},
        )
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, cwd=DEMO, env=server.env, check=True)
        with server, chromium(Path(folder) / "a") as left, chromium(Path(folder) / "b") as right:
            film = Film((left, right))
            for browser, name in ((left, "Mira"), (right, "Jonas")):
                # The window has a frame beside what the page gets.
                browser.set_window_size(SIZE[0], SIZE[1] + 160)
                browser.get(server.url("/room/workshop/", "http"))
                browser.find_element("id", "name").send_keys(name)
                browser.find_element("id", "join").click()
                eventually(lambda browser=browser: state(browser) == "live")
            film.take(2)
            say(film, left, "Good morning! Which server is this?")
            say(film, right, "The same gunicorn as ever. Two workers.")
            # A deploy: the workers are replaced.
            os.kill(server.process.pid, signal.SIGHUP)
            eventually(lambda: any(state(each) != "live" for each in film.browsers))
            film.take(3)
            subprocess.run(
                [sys.executable, "manage.py", "shell", "-c", SHELL],
                cwd=DEMO,
                env=server.env,
                check=True,
            )
            for each in film.browsers:
                eventually(lambda each=each: state(each) == "live")
                hears(each, "Said while you were away.")
            film.take(2)
            say(film, left, "Nothing lost in the deploy.")
            film.save(path)


if __name__ == "__main__":
    main()
